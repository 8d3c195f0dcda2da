/*
 * acpi-egm-memory: what users may write, and what they are told otherwise
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The tables that come out are the subject of acpi-egm-memory-tables-test.c.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <glib/gstdio.h>
#include "libqtest.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"

/* "$D" in command lines stands for a directory of this test's own */
static char *tmp_dir;

#define M0 "-object memory-backend-file,id=m0,mem-path=$D/m0,size=128M," \
           "share=on "
#define NODE0 "-m 128M -numa node,nodeid=0,memdev=m0 "
#define GPU "-device pcie-root-port,id=rp1,bus=pcie.0,addr=2,chassis=1 " \
            "-device pci-testdev,id=dev0,bus=rp1 "
#define EGM "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=0 "
#define EGM_ON(id, dev, node) "-object acpi-egm-memory,id=" id ",pci-dev=" dev \
                              ",node=" node " "
#define TWO_NODES M0 "-object memory-backend-file,id=m1,mem-path=$D/m1," \
                  "size=128M,share=on -m 256M -numa node,nodeid=0,memdev=m0 " \
                  "-numa node,nodeid=1,memdev=m1 "
/* numa_node=128 means that there is none. */
#define PXB(node) "-device pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32,numa_node=" \
                  node " -device pcie-root-port,id=rp1,bus=pxb,chassis=1 " \
                  "-device pci-testdev,id=dev0,bus=rp1 "
/* Room for memory devices, which need firmware and 64 bits, and one of them */
#define SLOTS "-cpu max -bios $D/firmware " \
              "-object memory-backend-ram,id=x,size=128M "
#define DIMMS SLOTS M0 "-m 128M,slots=4,maxmem=1G " \
              "-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1 " GPU EGM
#define NO_MORE "NUMA node 0 takes no memory device: acpi-egm-memory 'egm0' " \
                "tells the guest that the memory of node 0 is the EGM of 'dev0'"
#define ANON "-device pci-testdev "
#define GOOD M0 NODE0 GPU EGM
#define EGM0 "acpi-egm-memory 'egm0': "

static char *expand(const char *args)
{
    g_auto(GStrv) parts = g_strsplit(args, "$D", -1);

    return g_strjoinv(tmp_dir, parts);
}

/*
 * Start QEMU and end it by "quit" on its monitor, if it gets that far.
 * Returns the exit status; *text is what it wrote to stderr.
 */
static int run(const char *machine, const char *args, char **text)
{
    g_autofree char *expanded = expand(args);
    g_autofree char *line = g_strdup_printf(
        "echo quit | exec %s -machine %s -accel qtest -display none -nodefaults"
        " -monitor stdio %s", g_getenv("QTEST_QEMU_BINARY"), machine, expanded);
    const char *argv[] = { "/bin/sh", "-c", line, NULL };
    g_autofree char *out = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out,
                               text, &status, NULL));
    g_assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

typedef struct {
    const char *name;
    const char *machine;    /* NULL: virt */
    const char *args;
    const char *message;    /* NULL: starts without a word about EGM */
    bool starts;            /* the message is a warning, and the only one */
    const char *needs;      /* a type of device, not every QEMU has it */
} StartCase;

static const StartCase start_cases[] = {
    /* Properties */
    {
        .name = "pci-dev/missing",
        .args = M0 NODE0 GPU "-object acpi-egm-memory,id=egm0,node=0",
        .message = "Parameter 'pci-dev' is missing",
    }, {
        .name = "node/missing",
        .args = M0 NODE0 GPU "-object acpi-egm-memory,id=egm0,pci-dev=dev0",
        .message = "Parameter 'node' is missing",
    }, {
        .name = "node/json-type",
        .args = M0 NODE0 GPU "-object '{\"qom-type\":\"acpi-egm-memory\","
                "\"id\":\"egm0\",\"pci-dev\":\"dev0\",\"node\":\"0\"}'",
        .message = "Parameter 'node' expects uint",
    }, {
        .name = "pci-dev/json-type",
        .args = M0 NODE0 GPU "-object '{\"qom-type\":\"acpi-egm-memory\","
                "\"id\":\"egm0\",\"pci-dev\":0,\"node\":0}'",
        .message = "Invalid parameter type for 'pci-dev', expected: string",
    }, {
        .name = "node/negative",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=-1",
        .message = "Parameter 'node' expects a uint64 value",
    }, {
        .name = "unknown-property",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=0,size=1G",
        .message = "Invalid parameter 'size'",
    },

    /* The machine */
    {
        .name = "machine/none",
        .machine = "none",
        .args = EGM,
        .message = EGM0 "not supported by machine 'none'",
    }, {
        .name = "machine/sbsa-ref",
        .machine = "sbsa-ref",
        .args = EGM,
        .message = EGM0 "not supported by machine 'sbsa-ref'",
    }, {
        .name = "machine/kernel",
        .args = GOOD "-kernel $D/firmware",
        .message = EGM0 "-kernel without firmware: the guest is told about EGM "
                   "by ACPI tables",
    }, {
        .name = "machine/acpi-off",
        .machine = "virt,acpi=off",
        .args = GOOD,
        .message = EGM0 "machine option acpi=off: the guest is told about EGM "
                   "by ACPI tables",
    },

    /* The node */
    {
        .name = "node/above-limit",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=128",
        .message = EGM0 "node=128 is out of range; use 0 to 127",
    }, {
        .name = "node/highest-not-configured",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=127",
        .message = EGM0 "node=127: there is no such NUMA node",
    }, {
        .name = "node/not-configured",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=1",
        .message = EGM0 "node=1: there is no such NUMA node",
    }, {
        .name = "node/no-numa",
        .args = "-m 128M " GPU EGM,
        .message = EGM0 "node=0: there is no such NUMA node",
    }, {
        .name = "node/no-memory",
        .args = M0 NODE0 "-numa node,nodeid=1 " GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=1",
        .message = EGM0 "node=1: NUMA node 1 has no memory",
    }, {
        /* QEMU makes the node by itself */
        .name = "node/no-memdev",
        .machine = "virt,memory-backend=m0",
        .args = M0 "-m 128M,slots=1,maxmem=1G " GPU EGM,
        .message = EGM0 "node=0: the memory of NUMA node 0 has no memdev",
    }, {
        .name = "node/no-memdev-legacy",
        .machine = "virt-5.0",
        .args = "-m 128M -numa node,nodeid=0,mem=128M " GPU EGM,
        .message = EGM0 "node=0: the memory of NUMA node 0 has no memdev",
    },

    /* The backend */
    {
        .name = "memdev/ram",
        .args = "-object memory-backend-ram,id=m0,size=128M,share=on "
                NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' is a memory-backend-ram, "
                   "not a memory-backend-file",
    }, {
        .name = "memdev/memfd",
        .args = "-object memory-backend-memfd,id=m0,size=128M,share=on "
                NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' is a "
                   "memory-backend-memfd, not a memory-backend-file",
    }, {
        .name = "memdev/share-off",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/m0,size=128M,"
                "share=off " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has share=off: the guest "
                   "would run on a private copy that no GPU can reach",
    }, {
        .name = "memdev/share-default",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/m0,size=128M "
                NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has share=off",
    }, {
        .name = "memdev/readonly",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/full,size=128M,"
                "share=on,readonly=on " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has readonly=on: guest "
                   "RAM must be writable",
    }, {
        .name = "memdev/rom",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/full,size=128M,"
                "share=on,readonly=on,rom=on " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has readonly=on",
    }, {
        .name = "memdev/offset",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/full,size=128M,"
                "share=on,offset=2M " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has offset=2097152: a GPU "
                   "counts from the start of the EGM region",
    }, {
        .name = "memdev/regular-file",
        .args = GOOD,
        .message = "warning: memory backend 'm0': mem-path=$D/m0 is a regular "
                   "file, not an EGM device; good for tests, but no GPU can "
                   "reach it",
        .starts = true,
    }, {
        .name = "memdev/directory",
        .args = "-object memory-backend-file,id=m0,mem-path=$D,size=128M,"
                "share=on " NODE0 GPU EGM,
        .message = "warning: memory backend 'm0': mem-path=$D is a regular "
                   "file",
        .starts = true,
    }, {
        .name = "memdev/dev-shm",
        .args = "-object memory-backend-file,id=m0,mem-path=/dev/shm,size=128M,"
                "share=on " NODE0 GPU EGM,
        .message = "warning: memory backend 'm0': mem-path=/dev/shm is a "
                   "regular file",
        .starts = true,
    },

    /* The PCI device */
    {
        .name = "pci-dev/unknown",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev9,node=0",
        .message = EGM0 "pci-dev=dev9: there is no such device",
    }, {
        .name = "pci-dev/empty",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=,node=0",
        .message = EGM0 "pci-dev=: there is no such device",
    }, {
        .name = "pci-dev/not-pci",
        .args = M0 NODE0 GPU
                "-device usb-ehci,id=ehci -device usb-tablet,id=tab "
                "-object acpi-egm-memory,id=egm0,pci-dev=tab,node=0",
        .message = EGM0 "pci-dev=tab is a usb-tablet, not a PCI device",
    }, {
        .name = "pci-dev/not-a-device",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=/objects/m0,node=0",
        .message = EGM0 "pci-dev=/objects/m0 is a memory-backend-file, not a "
                   "PCI device",
    }, {
        .name = "pci-dev/bridge",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=rp1,node=0",
        .message = EGM0 "pci-dev=rp1 is a PCI bridge (pcie-root-port), not a "
                   "GPU",
    }, {
        .name = "pci-dev/host-bridge",
        .args = M0 NODE0 GPU "-device pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32 "
                "-object acpi-egm-memory,id=egm0,pci-dev=pxb,node=0",
        .message = EGM0 "pci-dev=pxb is a PCI bridge (pxb-pcie), not a GPU",
    }, {
        /* The machine's own NIC and the last of these have the same name. */
        .name = "pci-dev/ambiguous",
        .args = M0 NODE0 GPU "-nic hubport,hubid=0,model=virtio-net-pci "
                "-global virtio-net-pci.romfile= "
                ANON ANON ANON ANON ANON ANON ANON
                "-object acpi-egm-memory,id=egm0,pci-dev=device[6],node=0",
        .message = EGM0 "pci-dev=device[6] is ambiguous: it is the path of "
                   "several PCI devices",
    }, {
        .name = "pci-dev/twice",
        .args = GOOD "-object acpi-egm-memory,id=egm1,pci-dev=dev0,node=0",
        .message = "acpi-egm-memory 'egm1': pci-dev=dev0 already belongs to "
                   "acpi-egm-memory 'egm0'",
    }, {
        .name = "pci-dev/twice-by-path",
        .args = GOOD "-object acpi-egm-memory,id=egm1,"
                "pci-dev=/machine/peripheral/dev0,node=0",
        .message = "acpi-egm-memory 'egm1': pci-dev=/machine/peripheral/dev0 "
                   "already belongs to acpi-egm-memory 'egm0'",
    }, {
        .name = "pci-dev/function",
        .args = M0 NODE0 GPU "-device pci-testdev,id=f0,bus=pcie.0,addr=5.0,"
                "multifunction=on -device pci-testdev,id=f3,bus=pcie.0,addr=5.3 "
                "-object acpi-egm-memory,id=egm0,pci-dev=f3,node=0",
        .message = "warning: " EGM0 "pci-dev=f3 is device 5 function 3 of its "
                   "bus; the guest's driver finds a GPU's own memory nodes only "
                   "at device 0 function 0",
        .starts = true,
    }, {
        /* Said of the first one only */
        .name = "pci-dev/functions",
        .args = M0 NODE0 GPU "-device pci-testdev,id=f0,bus=pcie.0,addr=5.0,"
                "multifunction=on -device pci-testdev,id=f3,bus=pcie.0,addr=5.3 "
                "-object acpi-egm-memory,id=egm1,pci-dev=f3,node=0 "
                "-object acpi-egm-memory,id=egm0,pci-dev=f0,node=0",
        .message = "warning: " EGM0 "pci-dev=f0 is device 5 function 0",
        .starts = true,
    }, {
        .name = "host-bridge/bus-0",
        .args = M0 NODE0 "-device pxb-pcie,id=pxb,bus=pcie.0,numa_node=0 "
                "-device pcie-root-port,id=rp1,bus=pxb,chassis=1 "
                "-device pci-testdev,id=dev0,bus=rp1 " EGM,
        .message = EGM0 "pci-dev=dev0: the host bridge 'pxb' of the device has "
                   "bus_nr=0, as the machine's own has",
    }, {
        .name = "generic-initiator/same-node",
        .args = GOOD
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=0",
        .message = EGM0 "pci-dev=dev0: acpi-generic-initiator 'gi0' ties it "
                   "to node=0, which has memory",
    }, {
        .name = "generic-initiator/other-memory",
        .args = "-object memory-backend-ram,id=m1,size=128M "
                "-numa node,nodeid=1,memdev=m1 " M0 "-m 256M "
                "-numa node,nodeid=0,memdev=m0 " GPU EGM
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=1",
        .message = EGM0 "pci-dev=dev0: acpi-generic-initiator 'gi0' ties it "
                   "to node=1, which has memory",
    }, {
        .name = "generic-initiator/dimm",
        .args = DIMMS "-device pc-dimm,memdev=x,node=1 "
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=1",
        .message = EGM0 "pci-dev=dev0: acpi-generic-initiator 'gi0' ties it "
                   "to node=1, which has memory",
    }, {
        /* Its memory is still to come. */
        .name = "generic-initiator/virtio-mem",
        .args = DIMMS "-device virtio-mem-pci,memdev=x,node=1 "
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=1",
        .message = EGM0 "pci-dev=dev0: acpi-generic-initiator 'gi0' ties it "
                   "to node=1, which has memory",
    }, {
        /* It has no node= and is in the last one. */
        .name = "generic-initiator/virtio-pmem",
        .needs = "virtio-pmem-pci",
        .args = DIMMS "-device virtio-pmem-pci,memdev=x "
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=1",
        .message = EGM0 "pci-dev=dev0: acpi-generic-initiator 'gi0' ties it "
                   "to node=1, which has memory",
    }, {
        .name = "generic-initiator/other-device",
        .args = GOOD "-device pci-testdev,id=nic "
                "-object acpi-generic-initiator,id=gi0,pci-dev=nic,node=0",
        .starts = true,
    }, {
        .name = "generic-initiator/no-numa",
        .machine = "none",
        .args = "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=0",
        .message = "acpi-generic-initiator 'gi0': the machine has no NUMA "
                   "nodes",
    }, {
        .name = "generic-initiator/unknown-device",
        .args = GOOD "-numa node,nodeid=1 "
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev9,node=1",
        .message = "acpi-generic-initiator 'gi0': pci-dev=dev9: there is no "
                   "such PCI device",
    }, {
        .name = "generic-initiator/not-configured",
        .args = GOOD
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=9",
        .message = "acpi-generic-initiator 'gi0': node=9: there is no such "
                   "NUMA node",
    },

    /* The host bridge */
    {
        .name = "host-bridge/same-node",
        .args = TWO_NODES PXB("1") EGM_ON("egm0", "dev0", "1"),
        .starts = true,
    }, {
        .name = "host-bridge/other-node",
        .args = TWO_NODES PXB("1") EGM_ON("egm0", "dev0", "0"),
        .message = EGM0 "pci-dev=dev0, node=0: the host bridge 'pxb' of the "
                   "device has numa_node=1: the GPU would take the memory of "
                   "that node for its EGM",
    }, {
        .name = "host-bridge/two-nodes",
        .args = TWO_NODES GPU "-device pci-testdev,id=dev1 "
                EGM_ON("egm1", "dev1", "1") EGM_ON("egm0", "dev0", "0"),
        .message = "acpi-egm-memory 'egm1': pci-dev=dev1, node=1: "
                   "acpi-egm-memory 'egm0' has node=0 for dev0, below the same "
                   "host bridge 'pcie.0'",
    }, {
        .name = "host-bridge/two-nodes-below-pxb",
        .args = TWO_NODES PXB("128") "-device pcie-root-port,id=rp2,bus=pxb,"
                "addr=1,chassis=2 -device pci-testdev,id=dev1,bus=rp2 "
                EGM_ON("egm1", "dev1", "0") EGM_ON("egm0", "dev0", "1"),
        .message = "acpi-egm-memory 'egm1': pci-dev=dev1, node=0: "
                   "acpi-egm-memory 'egm0' has node=1 for dev0, below the same "
                   "host bridge 'pxb'",
    }, {
        .name = "node/base-not-aligned",
        .args = M0 "-object memory-backend-ram,id=m1,size=1M -m 129M "
                "-numa node,nodeid=0,memdev=m1 -numa node,nodeid=1,memdev=m0 "
                GPU EGM_ON("egm0", "dev0", "1"),
        .message = EGM0 "node=1: its RAM begins at 0x40100000, which is no "
                   "multiple of 2 MiB: the GPU's large pages would break",
    },

    /* More memory in the node */
    {
        .name = "memory-device/dimm",
        .args = DIMMS "-device pc-dimm,memdev=x,node=0",
        .message = NO_MORE "\nUse another node.\n",
    }, {
        /* That is node=0. */
        .name = "memory-device/dimm-without-node",
        .args = DIMMS "-device pc-dimm,memdev=x",
        .message = NO_MORE "\nUse another node.\n",
    }, {
        .name = "memory-device/dimm-other-node",
        .args = DIMMS "-device pc-dimm,memdev=x,node=1",
        .starts = true,
    }, {
        .name = "memory-device/nvdimm",
        .machine = "virt,nvdimm=on",
        .args = DIMMS "-device nvdimm,memdev=x,node=0",
        .message = NO_MORE "\nUse another node.\n",
    }, {
        .name = "memory-device/virtio-mem",
        .args = DIMMS "-device virtio-mem-pci,memdev=x,node=0",
        .message = NO_MORE "\nUse another node.\n",
    }, {
        .name = "memory-device/virtio-mem-other-node",
        .args = DIMMS "-device virtio-mem-pci,memdev=x,node=1",
        .starts = true,
    }, {
        /* It has no node= and is in the last one. */
        .name = "memory-device/virtio-pmem",
        .needs = "virtio-pmem-pci",
        .args = SLOTS TWO_NODES "-m 256M,slots=4,maxmem=1G " PXB("1")
                EGM_ON("egm0", "dev0", "1") "-device virtio-pmem-pci,memdev=x",
        .message = "NUMA node 1 takes no memory device: acpi-egm-memory 'egm0' "
                   "tells the guest that the memory of node 1 is the EGM of "
                   "'dev0'",
    },
};

/* Files stand in for EGM devices: that warning is always there, once each. */
static void assert_no_other_warning(const char *text, const char *message)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        if (**line && !strstr(*line, "is a regular file, not an EGM device; "
                              "good for tests, but no GPU can reach it")) {
            g_assert_true(message && strstr(*line, message));
        }
    }
}

static void test_start(const void *opaque)
{
    const StartCase *c = opaque;
    g_autofree char *message = c->message ? expand(c->message) : NULL;
    g_autofree char *text = NULL;
    int status = run(c->machine ?: "virt", c->args, &text);

    g_test_message("%s", text);
    if (message) {
        g_assert_nonnull(strstr(text, message));
    }
    if (c->starts) {
        assert_no_other_warning(text, message);
    }
    g_assert_cmpint(status, ==, c->starts ? 0 : 1);
}

/* A file directly in /dev, left there while the driver was not loaded */
static void test_file_in_dev(void)
{
    g_autofree char *path = g_strdup_printf("/dev/egm-test-%d", getpid());
    g_autofree char *args = g_strdup_printf(
        "-object memory-backend-file,id=m0,mem-path=%s,size=128M,share=on "
        NODE0 GPU EGM, path);
    g_autofree char *message = g_strdup_printf(
        EGM0 "node=0: memory backend 'm0': mem-path=%s is a regular file where "
        "a device should be", path);
    g_autofree char *text = NULL;
    int status;

    if (access("/dev", W_OK) < 0) {
        g_test_skip("needs the right to make files in /dev");
        return;
    }
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    g_assert_cmpint(truncate(path, 128 * MiB), ==, 0);
    status = run("virt", args, &text);
    g_unlink(path);
    g_test_message("%s", text);
    g_assert_nonnull(strstr(text, message));
    g_assert_cmpint(status, ==, 1);
}

/* A link to a file that is not there */
static void test_link(void)
{
    g_autofree char *path = g_build_filename(tmp_dir, "link", NULL);
    g_autofree char *target = g_build_filename(tmp_dir, "target", NULL);
    g_autofree char *text = NULL;
    int status;

    g_assert_cmpint(symlink(target, path), ==, 0);
    status = run("virt", "-object memory-backend-file,id=m0,mem-path=$D/link,"
                 "size=128M,share=on " NODE0, &text);
    g_unlink(path);
    g_test_message("%s", text);
    g_assert_nonnull(strstr(text, "/link for guest RAM: No such file or "
                            "directory"));
    g_assert_cmpint(status, ==, 1);
    g_assert_cmpint(access(target, F_OK), <, 0);
}

/* Two GPUs on one region: one warning about the region, not two. */
static void test_warn_once(void)
{
    g_autofree char *text = NULL;
    int status = run("virt", GOOD "-device pci-testdev,id=dev1 "
                     "-object acpi-egm-memory,id=egm1,pci-dev=dev1,node=0",
                     &text);
    const char *first = strstr(text, "is a regular file");

    g_assert_nonnull(first);
    g_assert_null(strstr(first + 1, "is a regular file"));
    g_assert_cmpint(status, ==, 0);
}

static void test_help(void)
{
    g_autofree char *line = g_strdup_printf(
        "%s -object acpi-egm-memory,help", g_getenv("QTEST_QEMU_BINARY"));
    g_autofree char *text = NULL;
    int status;

    g_assert_true(g_spawn_command_line_sync(line, &text, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    g_assert_nonnull(strstr(text, "node=<uint32>"));
    g_assert_nonnull(strstr(text, "guest NUMA node whose RAM is the EGM "
                            "region"));
    g_assert_nonnull(strstr(text, "pci-dev=<string>"));
    g_assert_nonnull(strstr(text, "id or QOM path of the PCI device (GPU) that "
                            "the EGM belongs to"));
}

/* Live machines */

static QTestState *start(const char *args)
{
    g_autofree char *expanded = expand(args);

    return qtest_initf("-machine virt -nodefaults %s", expanded);
}

static void assert_refused(QDict *rsp, const char *why)
{
    QDict *error = qdict_get_qdict(rsp, "error");

    const char *desc = error ? qdict_get_str(error, "desc") : "no error";

    g_test_message("%s", desc);
    g_assert_nonnull(strstr(desc, why));
    qobject_unref(rsp);
}

static QDict *add_object(QTestState *qts, const char *id, const char *pci_dev,
                         int node)
{
    return qtest_qmp(qts, "{ 'execute': 'object-add', 'arguments': {"
                     " 'qom-type': 'acpi-egm-memory', 'id': %s,"
                     " 'pci-dev': %s, 'node': %d } }", id, pci_dev, node);
}

static void test_preconfig(void)
{
    QTestState *qts = start(M0 NODE0 GPU "--preconfig");

    assert_refused(add_object(qts, "egm0", "dev0", 128),
                   EGM0 "node=128 is out of range; use 0 to 127");

    /* A change of mind is fine while there is no machine yet. */
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': {"
                             " 'qom-type': 'acpi-egm-memory', 'id': 'egm0',"
                             " 'pci-dev': 'wrong', 'node': 0 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                             " 'arguments': { 'id': 'egm0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': {"
                             " 'qom-type': 'acpi-egm-memory', 'id': 'egm0',"
                             " 'pci-dev': 'dev0', 'node': 0 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-exit-preconfig' }");

    /* The device is taken, so the object has been looked at. */
    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_del',"
                                  " 'arguments': { 'id': 'dev0' } }"),
                   "acpi-egm-memory 'egm0' tells the guest");
    qtest_quit(qts);
}

/* QEMU lets go of a backend that no machine uses yet. */
static void test_preconfig_memdev_deleted(void)
{
    g_autofree char *expanded = expand(M0 NODE0 GPU EGM);
    g_autofree char *line = g_strdup_printf(
        "printf '%%s\\n' '{\"execute\":\"qmp_capabilities\"}' "
        "'{\"execute\":\"object-del\",\"arguments\":{\"id\":\"m0\"}}' "
        "'{\"execute\":\"x-exit-preconfig\"}' '{\"execute\":\"quit\"}' | "
        "%s -machine virt -accel qtest -display none -nodefaults --preconfig "
        "-qmp stdio %s", g_getenv("QTEST_QEMU_BINARY"), expanded);
    const char *argv[] = { "/bin/sh", "-c", line, NULL };
    g_autofree char *out = NULL, *text = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out,
                               &text, &status, NULL));
    g_test_message("%s", text);
    g_assert_nonnull(strstr(text, EGM0 "node=0: its memory backend has been "
                            "deleted"));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
}

static void test_late(void)
{
    QTestState *qts = start(GOOD "-device pci-testdev,id=dev1");

    assert_refused(add_object(qts, "egm1", "dev1", 0),
                   "acpi-egm-memory 'egm1': too late: it must be created before "
                   "the machine");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'object-del',"
                                  " 'arguments': { 'id': 'egm0' } }"),
                   "object 'egm0' is in use, can not be deleted");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'object-del',"
                                  " 'arguments': { 'id': 'm0' } }"),
                   "in use");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                                  " 'path': '/objects/egm0',"
                                  " 'property': 'node', 'value': 1 } }"),
                   "property 'node' of acpi-egm-memory 'egm0' cannot be changed");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                                  " 'path': '/objects/egm0',"
                                  " 'property': 'pci-dev',"
                                  " 'value': 'dev1' } }"),
                   "property 'pci-dev' of acpi-egm-memory 'egm0' cannot be "
                   "changed");
    qtest_quit(qts);
}

/* The GPU does not go away on request; other devices do. */
static void test_unplug(void)
{
    QTestState *qts = start(
        M0 NODE0
        "-device pcie-root-port,id=rp0,bus=pcie.0,chassis=1 "
        "-device pcie-root-port,id=rp1,bus=pcie.0,chassis=2 "
        "-device pci-testdev,id=dev0,bus=rp0 "
        "-device pci-testdev,id=dev1,bus=rp1 " EGM);

    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_del',"
                                  " 'arguments': { 'id': 'dev0' } }"),
                   "acpi-egm-memory 'egm0' tells the guest that the memory of "
                   "node 0 is the EGM of 'dev0'");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'dev1' } }");
    qtest_quit(qts);
}

/* What is refused on the command line is refused later. */
static void test_plug_memory(void)
{
    QTestState *qts = start(DIMMS "-object memory-backend-ram,id=y,size=128M "
                            "-device pcie-root-port,id=rp2,chassis=2 "
                            "-device pci-testdev,id=nic "
                            "-numa node,nodeid=2 -numa node,nodeid=3 "
                            "-object acpi-generic-initiator,id=gi2,"
                            "pci-dev=dev0,node=2 "
                            "-object acpi-generic-initiator,id=gi3,"
                            "pci-dev=nic,node=3");

    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': {"
                                  " 'driver': 'pc-dimm', 'id': 'd0',"
                                  " 'memdev': 'x', 'node': 0 } }"), NO_MORE);
    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': {"
                                  " 'driver': 'virtio-mem-pci', 'id': 'v0',"
                                  " 'bus': 'rp2', 'memdev': 'x',"
                                  " 'node': 0 } }"), NO_MORE);
    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': {"
                                  " 'driver': 'pc-dimm', 'id': 'd2',"
                                  " 'memdev': 'x', 'node': 2 } }"),
                   "NUMA node 2 takes no memory device: the guest has been told "
                   "that the memory of node 2 is that of 'dev0' itself");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'pc-dimm', 'id': 'd3',"
                             " 'memdev': 'x', 'node': 3 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'virtio-mem-pci', 'id': 'v1',"
                             " 'bus': 'rp2', 'memdev': 'y', 'node': 1 } }");
    qtest_quit(qts);
}

static QDict *add_initiator(QTestState *qts, const char *id,
                            const char *pci_dev, int node)
{
    return qtest_qmp(qts, "{ 'execute': 'object-add', 'arguments': {"
                     " 'qom-type': 'acpi-generic-initiator', 'id': %s,"
                     " 'pci-dev': %s, 'node': %d } }", id, pci_dev, node);
}

/* Initiators that are added to a running machine */
static void test_add_initiator(void)
{
    QTestState *qts = start(TWO_NODES "-numa node,nodeid=2 " GPU EGM
                            "-device pci-testdev,id=nic");
    QDict *rsp;

    assert_refused(add_initiator(qts, "gi0", "dev0", 0),
                   EGM0 "pci-dev=dev0: acpi-generic-initiator 'gi0' ties it to "
                   "node=0, which has memory");
    assert_refused(add_initiator(qts, "gi0", "/machine/peripheral/dev0", 1),
                   "'gi0' ties it to node=1, which has memory");
    assert_refused(add_initiator(qts, "gi0", "dev9", 2),
                   "acpi-generic-initiator 'gi0': pci-dev=dev9: there is no "
                   "such PCI device");
    assert_refused(add_initiator(qts, "gi0", "dev0", 3),
                   "acpi-generic-initiator 'gi0': node=3: there is no such "
                   "NUMA node");
    assert_refused(add_initiator(qts, "gi0", "dev0", 128),
                   "Invalid NUMA node specified");
    /* The refused object is gone: its id is free. */
    rsp = add_initiator(qts, "gi0", "dev0", 2);
    g_assert_false(qdict_haskey(rsp, "error"));
    qobject_unref(rsp);
    rsp = add_initiator(qts, "gi1", "nic", 0);
    g_assert_false(qdict_haskey(rsp, "error"));
    qobject_unref(rsp);

    /* What has been checked stays. */
    assert_refused(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                                  " 'path': '/objects/gi0',"
                                  " 'property': 'node', 'value': 0 } }"),
                   "acpi-generic-initiator 'gi0' cannot be changed");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                                  " 'path': '/objects/gi1',"
                                  " 'property': 'pci-dev',"
                                  " 'value': 'dev0' } }"),
                   "acpi-generic-initiator 'gi1' cannot be changed");
    qtest_quit(qts);
}

/* An object that is deleted in time has no say. */
static void test_preconfig_deleted(void)
{
    QTestState *qts = start(DIMMS "--preconfig");

    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                             " 'arguments': { 'id': 'egm0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-exit-preconfig' }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'pc-dimm', 'id': 'd0',"
                             " 'memdev': 'x', 'node': 0 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'dev0' } }");
    qtest_quit(qts);
}

static void test_introspection(void)
{
    QTestState *qts = start(GOOD);
    g_autofree char *schema = NULL;
    QDict *rsp;
    QList *list;
    const QListEntry *entry;
    bool object_type = false, pci_dev = false, node = false;

    rsp = qtest_qmp(qts, "{ 'execute': 'query-qmp-schema' }");
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));
        QList *values = qdict_get_qlist(info, "values");
        const QListEntry *value;
        bool egm = false, gi = false;

        if (!values) {
            continue;
        }
        QLIST_FOREACH_ENTRY(values, value) {
            const char *s = qstring_get_str(
                qobject_to(QString, qlist_entry_obj(value)));

            egm |= g_str_equal(s, "acpi-egm-memory");
            gi |= g_str_equal(s, "acpi-generic-initiator");
        }
        object_type |= egm && gi;
    }
    g_assert_true(object_type);
    qobject_unref(rsp);

    rsp = qtest_qmp(qts, "{ 'execute': 'qom-list-properties',"
                    " 'arguments': { 'typename': 'acpi-egm-memory' } }");
    list = qdict_get_qlist(rsp, "return");
    QLIST_FOREACH_ENTRY(list, entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));
        const char *name = qdict_get_str(info, "name");
        const char *type = qdict_get_str(info, "type");

        pci_dev |= g_str_equal(name, "pci-dev") && g_str_equal(type, "string");
        node |= g_str_equal(name, "node") && g_str_equal(type, "uint32");
    }
    g_assert_true(pci_dev);
    g_assert_true(node);
    qobject_unref(rsp);

    rsp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                    " 'path': '/objects/egm0', 'property': 'pci-dev' } }");
    g_assert_cmpstr(qdict_get_str(rsp, "return"), ==, "dev0");
    qobject_unref(rsp);
    rsp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                    " 'path': '/objects/egm0', 'property': 'node' } }");
    g_assert_cmpint(qdict_get_int(rsp, "return"), ==, 0);
    qobject_unref(rsp);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_autofree char *full = NULL, *m0 = NULL, *m1 = NULL;
    g_autofree char *firmware = NULL;
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    /* One wrong message must not hide the others. */
    g_test_set_nonfatal_assertions();

    tmp_dir = g_dir_make_tmp("egm-test-XXXXXX", NULL);
    g_assert_nonnull(tmp_dir);
    m0 = g_build_filename(tmp_dir, "m0", NULL);
    m1 = g_build_filename(tmp_dir, "m1", NULL);
    full = g_build_filename(tmp_dir, "full", NULL);
    fd = g_creat(full, 0600);
    g_assert_cmpint(ftruncate(fd, 256 * MiB), ==, 0);
    close(fd);
    firmware = g_build_filename(tmp_dir, "firmware", NULL);
    g_assert_true(g_file_set_contents(firmware, "", 1, NULL));

    for (int i = 0; i < ARRAY_SIZE(start_cases); i++) {
        g_autofree char *path = g_strdup_printf("acpi-egm-memory/start/%s",
                                                start_cases[i].name);

        if (start_cases[i].machine &&
            g_str_has_prefix(start_cases[i].machine, "sbsa") &&
            !qtest_has_machine("sbsa-ref")) {
            continue;
        }
        if (start_cases[i].needs && !qtest_has_device(start_cases[i].needs)) {
            continue;
        }
        qtest_add_data_func(path, &start_cases[i], test_start);
    }
    qtest_add_func("acpi-egm-memory/start/memdev/in-dev", test_file_in_dev);
    qtest_add_func("acpi-egm-memory/start/memdev/link", test_link);
    qtest_add_func("acpi-egm-memory/start/memdev/warn-once", test_warn_once);
    qtest_add_func("acpi-egm-memory/help", test_help);
    qtest_add_func("acpi-egm-memory/qmp/preconfig", test_preconfig);
    qtest_add_func("acpi-egm-memory/qmp/preconfig/memdev-deleted",
                   test_preconfig_memdev_deleted);
    qtest_add_func("acpi-egm-memory/qmp/late", test_late);
    qtest_add_func("acpi-egm-memory/qmp/unplug", test_unplug);
    qtest_add_func("acpi-egm-memory/qmp/plug-memory", test_plug_memory);
    qtest_add_func("acpi-egm-memory/qmp/add-initiator", test_add_initiator);
    qtest_add_func("acpi-egm-memory/qmp/preconfig/deleted",
                   test_preconfig_deleted);
    qtest_add_func("acpi-egm-memory/qmp/introspection", test_introspection);

    ret = g_test_run();
    g_unlink(m0);
    g_unlink(m1);
    g_unlink(full);
    g_unlink(firmware);
    g_rmdir(tmp_dir);
    g_free(tmp_dir);
    return ret;
}
