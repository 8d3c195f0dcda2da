/*
 * acpi-egm-memory: accepted command lines and QMP commands, and errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The contents of the tables are tested by bios-tables-test.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include <glib/gstdio.h>
#include "libqtest.h"
#include "libqos/fw_cfg.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"

/* "$D" in command lines is replaced by the temporary directory of this test */
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
/* numa_node=128 means that the host bridge has no NUMA node. */
#define PXB(node) "-device pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32,numa_node=" \
                  node " -device pcie-root-port,id=rp1,bus=pxb,chassis=1 " \
                  "-device pci-testdev,id=dev0,bus=rp1 "
#define PXB_AT(n, nr) "-device pxb-pcie,id=pxb" #n ",bus=pcie.0,bus_nr=" #nr \
                      " -device pcie-root-port,id=rp" #n ",bus=pxb" #n \
                      ",chassis=1" #n " "
/* Another port of the first PXB_AT(), after its own */
#define RP3(options) "-device pcie-root-port,id=rp3,bus=pxb1,addr=9," \
                     "chassis=3" options " "
#define GPU_ON(bus) "-device pci-testdev,id=dev0,bus=" bus " "
#define GI(dev, node) "-object acpi-generic-initiator,id=gi" node ",pci-dev=" \
                      dev ",node=" node " "
#define RAM(id) "-object memory-backend-ram,id=" id ",size=128M "
/* Requirements of memory devices, and the memory of one of them */
#define SLOTS "-cpu max -bios $D/firmware " RAM("x")
/* Node 0 is EGM, node 1 is ordinary memory, node 2 is for the GPU's own. */
#define DIMMS SLOTS M0 RAM("r") "-m 256M,slots=4,maxmem=1G " \
              "-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1,memdev=r " \
              "-numa node,nodeid=2 " GPU EGM GI("dev0", "2")
#define NO_MORE(node) "cannot plug memory into NUMA node " node ": all " \
                      "memory of this node belongs to 'dev0' " \
                      "(acpi-egm-memory 'egm0'); use another node="
/* The only node with CPUs or memory is EGM. */
#define NO_ROOM SLOTS M0 "-m 128M,slots=4,maxmem=1G " \
                "-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1 " GPU EGM
#define NO_NODE "cannot plug memory: each NUMA node with CPUs or memory is " \
                "reserved by acpi-egm-memory"
#define ANON "-device pci-testdev "
#define GOOD M0 NODE0 GPU EGM
#define EGM0 "acpi-egm-memory 'egm0': "
#define BUS_NUMBERS(bridge, bus, needed) \
    EGM0 "pci-dev=dev0: host bridge '" bridge "' at bus " #bus " needs " \
    #needed " bus numbers for all bridges below it and their bus-reserve=, but "

static char *expand(const char *args)
{
    g_auto(GStrv) parts = g_strsplit(args, "$D", -1);

    return g_strjoinv(tmp_dir, parts);
}

/*
 * Start QEMU, and end it by "quit" on its monitor if it does not fail before.
 * Returns: the exit status; *text is its output on stderr.
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
    const char *message;    /* NULL: starts, and prints nothing about EGM */
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
        .message = EGM0 "machine 'none' does not support it; use -machine virt",
    }, {
        .name = "machine/sbsa-ref",
        .machine = "sbsa-ref",
        .args = EGM,
        .message = EGM0 "machine 'sbsa-ref' does not support it",
    }, {
        .name = "machine/kernel",
        .args = GOOD "-kernel $D/firmware",
        .message = EGM0 "the guest has no ACPI tables; use acpi=on, and UEFI "
                   "firmware instead of -kernel alone",
    }, {
        .name = "machine/acpi-off",
        .machine = "virt,acpi=off",
        .args = GOOD,
        .message = EGM0 "the guest has no ACPI tables",
    },

    /* The node */
    {
        .name = "node/above-limit",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=128",
        .message = EGM0 "node=128: there is no such NUMA node",
    }, {
        .name = "node/not-configured",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=1",
        .message = EGM0 "node=1: there is no such NUMA node; use -numa node,"
                   "nodeid=...,memdev=...",
    }, {
        .name = "node/no-numa",
        .args = "-m 128M " GPU EGM,
        .message = EGM0 "node=0: there is no such NUMA node",
    }, {
        .name = "node/no-memory",
        .args = M0 NODE0 "-numa node,nodeid=1 " GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=1",
        .message = EGM0 "node=1: this NUMA node has no memory; use the node "
                   "whose memdev is the EGM region",
    }, {
        /* QEMU adds the NUMA node itself. */
        .name = "node/no-memdev",
        .machine = "virt,memory-backend=m0",
        .args = M0 "-m 128M,slots=1,maxmem=1G " GPU EGM,
        .message = EGM0 "node=0: the memory of this NUMA node has no memdev; "
                   "use -numa node,nodeid=0,memdev=...",
    },

    /* The backend */
    {
        .name = "memdev/ram",
        .args = "-object memory-backend-ram,id=m0,size=128M,share=on "
                NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' is a memory-backend-ram: "
                   "use a memory-backend-file on the EGM device",
    }, {
        .name = "memdev/memfd",
        .args = "-object memory-backend-memfd,id=m0,size=128M,share=on "
                NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' is a "
                   "memory-backend-memfd: use a memory-backend-file on the EGM "
                   "device",
    }, {
        .name = "memdev/share-off",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/m0,size=128M,"
                "share=off " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has share=off: use "
                   "share=on, as a GPU cannot reach a private copy of the "
                   "region",
    }, {
        .name = "memdev/share-default",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/m0,size=128M "
                NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has share=off",
    }, {
        .name = "memdev/readonly",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/full,size=128M,"
                "share=on,readonly=on " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has readonly=on: use "
                   "readonly=off, as guest RAM must be writable",
    }, {
        .name = "memdev/rom",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/full,size=128M,"
                "share=on,readonly=on,rom=on " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has readonly=on",
    }, {
        .name = "memdev/offset",
        .args = "-object memory-backend-file,id=m0,mem-path=$D/full,size=128M,"
                "share=on,offset=2M " NODE0 GPU EGM,
        .message = EGM0 "node=0: memory backend 'm0' has offset=2097152: use "
                   "offset=0, as GPUs address the region from its start",
    }, {
        .name = "memdev/regular-file",
        .args = GOOD,
        .message = "warning: memory backend 'm0': mem-path=$D/m0 is a regular "
                   "file, not an EGM device; this works for tests, but no GPU "
                   "can reach it",
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
        .message = EGM0 "pci-dev=dev9: there is no PCI device with this id or "
                   "QOM path",
    }, {
        .name = "pci-dev/empty",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=,node=0",
        .message = EGM0 "pci-dev=: there is more than one PCI device with "
                   "this id or QOM path",
    }, {
        .name = "pci-dev/not-pci",
        .args = M0 NODE0 GPU
                "-device usb-ehci,id=ehci -device usb-tablet,id=tab "
                "-object acpi-egm-memory,id=egm0,pci-dev=tab,node=0",
        .message = EGM0 "pci-dev=tab: there is no PCI device with this id",
    }, {
        .name = "pci-dev/bridge",
        .args = M0 NODE0 GPU
                "-object acpi-egm-memory,id=egm0,pci-dev=rp1,node=0",
        .message = EGM0 "pci-dev=rp1 is a bridge (pcie-root-port); use the GPU "
                   "behind it",
    }, {
        .name = "pci-dev/host-bridge",
        .args = M0 NODE0 GPU "-device pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32 "
                "-object acpi-egm-memory,id=egm0,pci-dev=pxb,node=0",
        .message = EGM0 "pci-dev=pxb is a bridge (pxb-pcie)",
    }, {
        /* The machine's own NIC and the last device have the same name. */
        .name = "pci-dev/ambiguous",
        .args = M0 NODE0 GPU "-nic hubport,hubid=0,model=virtio-net-pci "
                "-global virtio-net-pci.romfile= "
                ANON ANON ANON ANON ANON ANON ANON
                "-object acpi-egm-memory,id=egm0,pci-dev=device[6],node=0",
        .message = EGM0 "pci-dev=device[6]: there is more than one PCI device "
                   "with this id or QOM path",
    }, {
        .name = "pci-dev/twice",
        .args = GOOD "-object acpi-egm-memory,id=egm1,pci-dev=dev0,node=0",
        .message = "acpi-egm-memory 'egm1': pci-dev=dev0 already belongs to "
                   "acpi-egm-memory 'egm0'; use one object for each GPU",
    }, {
        .name = "pci-dev/twice-by-path",
        .args = GOOD "-object acpi-egm-memory,id=egm1,"
                "pci-dev=/machine/peripheral/dev0,node=0",
        .message = "acpi-egm-memory 'egm1': pci-dev=/machine/peripheral/dev0 "
                   "already belongs to acpi-egm-memory 'egm0'",
    }, {
        .name = "pci-dev/function",
        .args = M0 NODE0 GPU "-device pci-testdev,id=f0,bus=pcie.0,addr=5.0,"
                "multifunction=on "
                "-device pci-testdev,id=f3,bus=pcie.0,addr=5.3 "
                "-object acpi-egm-memory,id=egm0,pci-dev=f3,node=0",
        .message = "warning: " EGM0 "pci-dev=f3 is device 5 function 3 of its "
                   "bus; the guest's driver finds a GPU's own memory nodes "
                   "only at device 0 function 0",
        .starts = true,
    }, {
        .name = "bus-numbers/two",
        .args = M0 NODE0 PXB_AT(1, 1) PXB_AT(2, 2) GPU_ON("rp1") EGM,
        .message = BUS_NUMBERS("pxb1", 1, 2)
                   "host bridge pxb2 leaves 1; use other values of bus_nr=",
    }, {
        .name = "bus-numbers/enough",
        .args = M0 NODE0 PXB_AT(1, 1) PXB_AT(2, 3) GPU_ON("rp1") EGM,
        .starts = true,
    }, {
        .name = "bus-numbers/other-bridge-first",
        .args = M0 NODE0 PXB_AT(1, 1) PXB_AT(2, 3) RP3("") GPU_ON("rp3") EGM,
        .message = BUS_NUMBERS("pxb1", 1, 3)
                   "host bridge pxb2 leaves 2",
    }, {
        .name = "bus-numbers/other-bridge-last",
        .args = M0 NODE0 PXB_AT(1, 1) PXB_AT(2, 3) RP3("") GPU_ON("rp1") EGM,
        .message = BUS_NUMBERS("pxb1", 1, 3)
                   "host bridge pxb2 leaves 2",
    }, {
        .name = "bus-numbers/reserved",
        .args = M0 NODE0 PXB_AT(1, 1) PXB_AT(2, 4) RP3(",bus-reserve=1")
                GPU_ON("rp1") EGM,
        .message = BUS_NUMBERS("pxb1", 1, 4)
                   "host bridge pxb2 leaves 3",
    }, {
        .name = "bus-numbers/reserved-enough",
        .args = M0 NODE0 PXB_AT(1, 1) PXB_AT(2, 5) RP3(",bus-reserve=1")
                GPU_ON("rp1") EGM,
        .starts = true,
    }, {
        .name = "bus-numbers/switch",
        .args = M0 NODE0 PXB_AT(1, 8) PXB_AT(2, 11) "-device x3130-upstream,"
                "id=up,bus=rp1 -device xio3130-downstream,id=d0,bus=up,"
                "chassis=3,addr=0 " GPU_ON("d0") EGM,
        .message = BUS_NUMBERS("pxb1", 8, 4)
                   "host bridge pxb2 leaves 3",
    }, {
        .name = "bus-numbers/main",
        .args = M0 NODE0 PXB_AT(2, 1) GPU EGM,
        .message = BUS_NUMBERS("pcie.0", 0, 2)
                   "host bridge pxb2 leaves 1",
    }, {
        .name = "bus-numbers/end",
        .args = M0 NODE0 "-cpu max " PXB_AT(1, 255) GPU_ON("rp1") EGM,
        .message = BUS_NUMBERS("pxb1", 255, 2)
                   "the ECAM window leaves 1",
    }, {
        .name = "bus-numbers/small-ecam",
        .machine = "virt,highmem-ecam=off",
        .args = M0 NODE0 PXB_AT(1, 15) GPU_ON("rp1") EGM,
        .message = BUS_NUMBERS("pxb1", 15, 2)
                   "the ECAM window leaves 1",
    }, {
        .name = "bus-numbers/zero",
        .args = M0 NODE0 PXB_AT(1, 0) GPU_ON("rp1") EGM,
        .message = BUS_NUMBERS("pxb1", 0, 2)
                   "host bridge pcie.0 leaves 0",
    }, {
        .name = "generic-initiator/same-node",
        .args = GOOD
                "-object acpi-generic-initiator,id=gi0,pci-dev=dev0,node=0",
        .message = EGM0 "pci-dev=dev0: an acpi-generic-initiator ties it to "
                   "node=0, and the guest would treat the memory of this node "
                   "as the GPU's own; use a node without memory",
    }, {
        .name = "generic-initiator/other-memory",
        .args = TWO_NODES GPU EGM GI("/machine/peripheral/dev0", "1"),
        .message = EGM0 "pci-dev=dev0: an acpi-generic-initiator ties it to "
                   "node=1",
    }, {
        .name = "generic-initiator/other-device",
        .args = GOOD "-device pci-testdev,id=nic "
                "-object acpi-generic-initiator,id=gi0,pci-dev=nic,node=0",
        .starts = true,
    },

    /* The host bridge */
    {
        .name = "host-bridge/same-node",
        .args = TWO_NODES PXB("1") EGM_ON("egm0", "dev0", "1"),
        .starts = true,
    }, {
        .name = "host-bridge/other-node",
        .args = TWO_NODES PXB("1") EGM_ON("egm0", "dev0", "0"),
        .message = EGM0 "pci-dev=dev0, node=0: host bridge 'pxb' of the "
                   "device has numa_node=1, and the GPU would treat that "
                   "node's memory as its EGM",
    }, {
        .name = "host-bridge/two-nodes",
        .args = TWO_NODES GPU "-device pci-testdev,id=dev1 "
                EGM_ON("egm1", "dev1", "1") EGM_ON("egm0", "dev0", "0"),
        .message = "acpi-egm-memory 'egm1': pci-dev=dev1, node=1: "
                   "acpi-egm-memory 'egm0' has node=0 for dev0, below the same "
                   "host bridge 'pcie.0'; use a pxb-pcie with numa_node= for "
                   "each node",
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
        .message = EGM0 "node=1: its RAM starts at 0x40100000, which is not a "
                   "multiple of 2 MiB: the GPU could not use large pages; "
                   "change the sizes of the nodes before it",
    },

    /* More memory in the node */
    {
        .name = "memory-device/dimm",
        .args = DIMMS "-device pc-dimm,memdev=x,node=0",
        .message = NO_MORE("0"),
    }, {
        /* The default is node=0. */
        .name = "memory-device/dimm-without-node",
        .args = DIMMS "-device pc-dimm,memdev=x",
        .message = NO_MORE("0"),
    }, {
        .name = "memory-device/dimm-other-node",
        .args = DIMMS "-device pc-dimm,memdev=x,node=1",
        .starts = true,
    }, {
        .name = "memory-device/dimm-own-node",
        .args = DIMMS "-device pc-dimm,memdev=x,node=2",
        .message = NO_MORE("2"),
    }, {
        .name = "memory-device/nvdimm",
        .machine = "virt,nvdimm=on",
        .args = DIMMS "-device nvdimm,memdev=x,node=0",
        .message = NO_MORE("0"),
    }, {
        .name = "memory-device/virtio-mem",
        .args = DIMMS "-device virtio-mem-pci,memdev=x,node=0",
        .message = NO_MORE("0"),
    }, {
        .name = "memory-device/virtio-mem-other-node",
        .args = DIMMS "-device virtio-mem-pci,memdev=x,node=1",
        .starts = true,
    }, {
        .name = "memory-device/virtio-mem-own-node",
        .args = DIMMS "-device virtio-mem-pci,memdev=x,node=2",
        .message = NO_MORE("2"),
    }, {
        /* virtio-pmem has no node=; it is in the node of SRAT's window. */
        .name = "memory-device/virtio-pmem",
        .needs = "virtio-pmem-pci",
        .args = DIMMS "-device virtio-pmem-pci,memdev=x",
        .starts = true,
    }, {
        .name = "memory-device/none-with-room",
        .args = NO_ROOM,
        .starts = true,
    }, {
        .name = "memory-device/no-room",
        .args = NO_ROOM "-device pc-dimm,memdev=x,node=1",
        .message = NO_NODE,
    }, {
        .name = "memory-device/no-room-for-pmem",
        .needs = "virtio-pmem-pci",
        .args = NO_ROOM "-device virtio-pmem-pci,memdev=x",
        .message = NO_NODE,
    },
};

/* Files stand in for EGM devices: each file causes one warning. */
static void assert_no_other_warning(const char *text, const char *message)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        if (**line && !strstr(*line, "is a regular file, not an EGM device; "
                              "this works for tests, but no GPU can reach "
                              "it")) {
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

/* Each GPU that is not device 0, function 0 gets a warning. */
static void test_warn_each(void)
{
    g_autofree char *text = NULL;
    int status = run("virt", M0 NODE0
                     "-device pci-testdev,id=f0,bus=pcie.0,addr=5.0,"
                     "multifunction=on "
                     "-device pci-testdev,id=f3,bus=pcie.0,addr=5.3 "
                     EGM_ON("egm0", "f0", "0") EGM_ON("egm1", "f3", "0"),
                     &text);

    g_assert_nonnull(strstr(text, "warning: " EGM0 "pci-dev=f0 is device 5 "
                            "function 0 of its bus"));
    g_assert_nonnull(strstr(text, "warning: acpi-egm-memory 'egm1': pci-dev=f3 "
                            "is device 5 function 3 of its bus"));
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

#define TOO_LATE "acpi-egm-memory can only be created or changed before the " \
                 "machine exists: ACPI tables describe hardware that is " \
                 "present at boot"

static void test_preconfig(void)
{
    QTestState *qts = start(M0 NODE0 GPU "--preconfig");

    /* Objects can be deleted and added again before the machine exists. */
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': {"
                             " 'qom-type': 'acpi-egm-memory', 'id': 'egm0',"
                             " 'pci-dev': 'wrong', 'node': 0 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                             " 'arguments': { 'id': 'egm0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': {"
                             " 'qom-type': 'acpi-egm-memory', 'id': 'egm0',"
                             " 'pci-dev': 'dev0', 'node': 0 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-exit-preconfig' }");

    assert_refused(qtest_qmp(qts, "{ 'execute': 'object-del',"
                                  " 'arguments': { 'id': 'egm0' } }"),
                   "object 'egm0' is in use, can not be deleted");
    qtest_quit(qts);
}

/* QEMU deletes a backend that no machine uses yet. */
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
    g_assert_nonnull(strstr(text, EGM0 "node=0: the memory backend has been "
                            "deleted"));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
}

static void test_late(void)
{
    QTestState *qts = start(GOOD "-device pci-testdev,id=dev1");

    assert_refused(qtest_qmp(qts, "{ 'execute': 'object-add', 'arguments': {"
                             " 'qom-type': 'acpi-egm-memory', 'id': 'egm1',"
                             " 'pci-dev': 'dev1', 'node': 0 } }"), TOO_LATE);
    assert_refused(qtest_qmp(qts, "{ 'execute': 'object-del',"
                                  " 'arguments': { 'id': 'egm0' } }"),
                   "object 'egm0' is in use, can not be deleted");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'object-del',"
                                  " 'arguments': { 'id': 'm0' } }"),
                   "in use");
    assert_refused(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                                  " 'path': '/objects/egm0',"
                                  " 'property': 'node', 'value': 1 } }"),
                   TOO_LATE);
    assert_refused(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                                  " 'path': '/objects/egm0',"
                                  " 'property': 'pci-dev',"
                                  " 'value': 'dev1' } }"),
                   TOO_LATE);
    qtest_quit(qts);
}

/* Memory that is refused on the command line is also refused later. */
static void test_plug_memory(void)
{
    QTestState *qts = start(DIMMS RAM("y")
                            "-device pcie-root-port,id=rp2,chassis=2 ");

    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': {"
                                  " 'driver': 'pc-dimm', 'id': 'd0',"
                                  " 'memdev': 'x', 'node': 0 } }"),
                   NO_MORE("0"));
    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': {"
                                  " 'driver': 'virtio-mem-pci', 'id': 'v0',"
                                  " 'bus': 'rp2', 'memdev': 'x',"
                                  " 'node': 0 } }"), NO_MORE("0"));
    assert_refused(qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': {"
                                  " 'driver': 'pc-dimm', 'id': 'd2',"
                                  " 'memdev': 'x', 'node': 2 } }"),
                   NO_MORE("2"));
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'pc-dimm', 'id': 'd1',"
                             " 'memdev': 'x', 'node': 1 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'virtio-mem-pci', 'id': 'v1',"
                             " 'bus': 'rp2', 'memdev': 'y', 'node': 1 } }");
    /* The GPU can be unplugged like other devices. */
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'dev0' } }");
    qtest_quit(qts);
}

/* SRAT's window for memory devices */

static void fw_cfg_select(QFWCFG *fw_cfg, uint16_t key)
{
    qtest_writew(fw_cfg->qts, fw_cfg->base + 8, bswap16(key));
}

static void fw_cfg_read(QFWCFG *fw_cfg, void *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        ((uint8_t *)data)[i] = qtest_readb(fw_cfg->qts, fw_cfg->base);
    }
}

typedef struct {
    const char *name;
    const char *args;
    const char *nodes;      /* proximity domains of hot-pluggable memory */
} WindowCase;

static const WindowCase window_cases[] = {
    {
        .name = "no-egm",
        .args = M0 "-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1 " GPU
                GI("dev0", "1"),
        .nodes = "1 ",
    }, {
        .name = "own-node-last",
        .args = M0 "-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1 " GPU EGM
                GI("dev0", "1"),
        .nodes = "",
    }, {
        .name = "egm-node-last",
        .args = M0 "-smp 2 -numa node,nodeid=0,cpus=0-1 "
                "-numa node,nodeid=1,memdev=m0 " GPU
                EGM_ON("egm0", "dev0", "1"),
        .nodes = "0 ",
    }, {
        .name = "empty-node-last",
        .args = M0 "-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1 " GPU EGM,
        .nodes = "",
    },
};

/* ACPI 6.5, 5.2.16.2: Memory Affinity Structures that are hot-pluggable */
static void test_window(const void *opaque)
{
    const WindowCase *c = opaque;
    g_autofree char *args = expand(c->args);
    QTestState *qts = qtest_initf("-machine virt -nodefaults -cpu max "
                                  "-m 128M,slots=2,maxmem=1G %s", args);
    QFWCFG fw_cfg = { .base = 0x09020000, .qts = qts,
                      .select = fw_cfg_select, .read = fw_cfg_read };
    /* The rest is padding. */
    g_autofree uint8_t *tables = g_malloc0(16 * KiB);
    g_autoptr(GString) nodes = g_string_new("");
    const uint8_t *p = tables, *end;

    g_assert_cmpint(qfw_cfg_get_file(&fw_cfg, "etc/acpi/tables", tables,
                                     16 * KiB), >, 0);
    while (memcmp(p, "SRAT", 4)) {
        g_assert_cmpint(ldl_le_p(p + 4), >=, 36);
        p += ldl_le_p(p + 4);
    }
    end = p + ldl_le_p(p + 4);
    for (p += 48; p < end; p += p[1]) {
        if (p[0] == 1 && ldl_le_p(p + 28) & 2) {
            g_string_append_printf(nodes, "%u ", ldl_le_p(p + 2));
        }
    }
    g_assert_cmpstr(nodes->str, ==, c->nodes);
    qtest_quit(qts);
}

/* An object that is deleted before the machine exists has no effect. */
static void test_preconfig_deleted(void)
{
    QTestState *qts = start(DIMMS "--preconfig");

    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                             " 'arguments': { 'id': 'egm0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-exit-preconfig' }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'pc-dimm', 'id': 'd0',"
                             " 'memdev': 'x', 'node': 0 } }");
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
    qtest_add_func("acpi-egm-memory/start/memdev/warn-once", test_warn_once);
    qtest_add_func("acpi-egm-memory/start/pci-dev/warn-each", test_warn_each);
    for (int i = 0; i < ARRAY_SIZE(window_cases); i++) {
        g_autofree char *path = g_strdup_printf("acpi-egm-memory/window/%s",
                                                window_cases[i].name);

        qtest_add_data_func(path, &window_cases[i], test_window);
    }
    qtest_add_func("acpi-egm-memory/help", test_help);
    qtest_add_func("acpi-egm-memory/qmp/preconfig", test_preconfig);
    qtest_add_func("acpi-egm-memory/qmp/preconfig/memdev-deleted",
                   test_preconfig_memdev_deleted);
    qtest_add_func("acpi-egm-memory/qmp/late", test_late);
    qtest_add_func("acpi-egm-memory/qmp/plug-memory", test_plug_memory);
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
