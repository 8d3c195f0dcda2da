/*
 * acpi-egm-memory: the tables of every kind of machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each case is a command line and the ACPI Devices that it must give. The
 * tables are read as the firmware reads them, through fw_cfg. No guest runs, so
 * a case takes a fraction of a second.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include <glib/gstdio.h>
#include "libqtest.h"
#include "libqos/fw_cfg.h"
#include "qobject/qdict.h"

#define FW_CFG_BASE 0x09020000ULL
#define ECAM_BASE   0x4010000000ULL
#define RAM_BASE    0x40000000ULL
#define TABLES_MAX  (1 * MiB)

static char *tmp_dir;

/* Whether this QEMU has a property of @type, or of its virt machine if NULL */
static bool has_property(const char *type, const char *property)
{
    QTestState *qts = qtest_init("-machine virt -cpu max -nodefaults");
    QDict *rsp = type
        ? qtest_qmp(qts, "{ 'execute': 'qom-list-properties',"
                         " 'arguments': { 'typename': %s } }", type)
        : qtest_qmp(qts, "{ 'execute': 'qom-list',"
                         " 'arguments': { 'path': '/machine' } }");
    const QListEntry *entry;
    bool found = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        found |= g_str_equal(qdict_get_str(info, "name"), property);
    }
    qobject_unref(rsp);
    qtest_quit(qts);
    return found;
}

static char *replace(const char *args, const char *what, const char *by)
{
    g_auto(GStrv) parts = g_strsplit(args, what, -1);

    return g_strjoinv(by, parts);
}

/*
 * In command lines "$D" stands for a directory of this test's own, "$CXL" for
 * the machine option that CXL needs, if it needs one.
 */
static char *expand(const char *args)
{
    g_autofree char *expanded = replace(args, "$D", tmp_dir);

    if (!strstr(args, "$CXL")) {
        return g_steal_pointer(&expanded);
    }
    return replace(expanded, "$CXL",
                   has_property(NULL, "cxl") ? ",cxl=on" : "");
}

static void remove_files(void)
{
    for (int i = 0; i < 6; i++) {
        g_autofree char *path = g_strdup_printf("%s/m%d", tmp_dir, i);

        g_unlink(path);
    }
}

static QTestState *start(const char *args)
{
    g_autofree char *expanded = expand(args);

    remove_files();
    return qtest_initf("-nodefaults -cpu max %s", expanded);
}

/*
 * Reading what QEMU built, by DMA from fw_cfg into guest RAM. libqos knows the
 * registers of other machines than virt, so only its view of the directory is
 * used.
 */
static void fw_cfg_select(QFWCFG *fw_cfg, uint16_t key)
{
    qtest_writew(fw_cfg->qts, fw_cfg->base + 8, bswap16(key));
}

static void fw_cfg_read(QFWCFG *fw_cfg, void *data, size_t len)
{
    uint8_t access[16];

    stl_be_p(access, 2 /* read */);
    stl_be_p(access + 4, len);
    stq_be_p(access + 8, RAM_BASE + sizeof(access));
    qtest_memwrite(fw_cfg->qts, RAM_BASE, access, sizeof(access));
    qtest_writeq(fw_cfg->qts, fw_cfg->base + 16, bswap64(RAM_BASE));
    g_assert_cmphex(qtest_readl(fw_cfg->qts, RAM_BASE), ==, 0);
    qtest_memread(fw_cfg->qts, RAM_BASE + sizeof(access), data, len);
}

static GByteArray *read_tables(QTestState *qts)
{
    QFWCFG fw_cfg = {
        .base = FW_CFG_BASE, .qts = qts,
        .select = fw_cfg_select, .read = fw_cfg_read,
    };
    GByteArray *tables = g_byte_array_new();
    size_t len;

    g_byte_array_set_size(tables, TABLES_MAX);
    len = qfw_cfg_get_file(&fw_cfg, "etc/acpi/tables", tables->data,
                           TABLES_MAX);
    g_assert_cmpint(len, >, 0);
    g_assert_cmpint(len, <=, TABLES_MAX);
    g_byte_array_set_size(tables, len);
    return tables;
}

static const uint8_t *find_table(const GByteArray *tables, const char *sig,
                                 const uint8_t **end)
{
    uint32_t pos, len;

    for (pos = 0; pos + 36 <= tables->len; pos += len) {
        len = ldl_le_p(tables->data + pos + 4);
        if (!memcmp(tables->data + pos, sig, 4)) {
            g_assert_cmpint(pos + len, <=, tables->len);
            *end = tables->data + pos + len;
            return tables->data + pos;
        }
        g_assert_cmpint(len, >=, 36);
    }
    g_assert_not_reached();
}

/* The little of AML that acpi-egm-memory writes; anything else is an error */

static const uint8_t *aml_package_end(const uint8_t **p)
{
    const uint8_t *begin = *p;
    unsigned more = **p >> 6;
    uint32_t len = *(*p)++ & (more ? 0xf : 0x3f);

    for (unsigned i = 0; i < more; i++) {
        len |= *(*p)++ << (4 + 8 * i);
    }
    return begin + len;
}

static uint64_t aml_integer(const uint8_t **p)
{
    uint8_t op = *(*p)++;
    unsigned size = op == 0x0a ? 1 : op == 0x0b ? 2 : op == 0x0c ? 4 : 8;
    uint64_t value;

    if (op <= 1) {
        return op;
    }
    g_assert_true(op >= 0x0a && op <= 0x0e && op != 0x0d);
    value = ldn_le_p(*p, size);
    *p += size;
    return value;
}

static void aml_expect(const uint8_t **p, const void *bytes, size_t len)
{
    g_assert_cmpmem(*p, len, bytes, len);
    *p += len;
}

static uint64_t aml_property(const uint8_t **p, const char *name)
{
    const uint8_t *end;

    aml_expect(p, "\x12", 1);
    end = aml_package_end(p);
    aml_expect(p, "\x02\x0d", 2);
    aml_expect(p, name, strlen(name) + 1);
    g_assert_cmpint(*p - end, <, 0);
    return aml_integer(p);
}

/* _DSD: two elements, the UUID of device properties and three of these */
static void aml_dsd(const uint8_t **p, GString *out)
{
    static const uint8_t uuid[] = {
        0x11, 0x13, 0x0a, 0x10,
        0x14, 0xd8, 0xff, 0xda, 0xba, 0x6e, 0x8c, 0x4d,
        0x8a, 0x91, 0xbc, 0x9b, 0xbf, 0x4a, 0xa3, 0x01,
    };
    const uint8_t *end;
    uint64_t base, size, pxm;

    aml_expect(p, "\x12", 1);
    end = aml_package_end(p);
    aml_expect(p, "\x02", 1);
    aml_expect(p, uuid, sizeof(uuid));
    aml_expect(p, "\x12", 1);
    g_assert_true(aml_package_end(p) == end);
    aml_expect(p, "\x03", 1);
    base = aml_property(p, "nvidia,egm-base-pa");
    size = aml_property(p, "nvidia,egm-size");
    pxm = aml_property(p, "nvidia,egm-pxm");
    g_assert_true(*p == end);
    g_string_append_printf(out, " base=0x%" PRIx64 " size=0x%" PRIx64
                           " pxm=%" PRIu64, base, size, pxm);
}

/* What the DSDT says about one object, in all its scopes */

typedef struct {
    const uint8_t *begin, *end;
} AmlBody;

static const uint8_t *aml_declaration(const uint8_t *p, bool *device)
{
    *device = p[0] == 0x5b && p[1] == 0x82;
    return *device ? p + 2 : p[0] == 0x10 ? p + 1 : NULL;
}

/*
 * Bodies of the Device @name that is declared directly in one of @bodies, and
 * of the scopes that re-open it there. @devices counts the Devices: with two,
 * the guest would take the first. Names of host bridges, which begin with "PC",
 * may be absolute.
 */
static GArray *aml_find(const GArray *bodies, const uint8_t *name,
                        unsigned *devices)
{
    GArray *found = g_array_new(false, false, sizeof(AmlBody));

    *devices = 0;
    for (unsigned i = 0; i < bodies->len; i++) {
        const AmlBody *in = &g_array_index(bodies, AmlBody, i);
        const uint8_t *p = in->begin;

        while (p + 12 < in->end) {
            bool device;
            const uint8_t *body = aml_declaration(p, &device);
            AmlBody inner = { 0 };

            if (body) {
                inner.end = aml_package_end(&body);
                inner.begin = body;
                if (!device && !memcmp(body, "\\", 1)) {
                    inner.begin++;
                }
                if (!device && !memcmp(inner.begin, "\x2e_SB_", 5)) {
                    inner.begin += 5;
                }
            }
            if (!body || inner.end > in->end ||
                (inner.begin[0] != 'S' && memcmp(inner.begin, "PC", 2))) {
                p++;
                continue;
            }
            if (!memcmp(inner.begin, name, 4)) {
                inner.begin += 4;
                *devices += device;
                if (device) {
                    g_array_prepend_val(found, inner);
                } else {
                    g_array_append_val(found, inner);
                }
            }
            p = inner.end;
        }
    }
    return found;
}

/*
 * The Devices in @p up to @end, and the re-opened scopes of those that are
 * declared in @before, the bodies of the same parent that come before
 */
static void aml_devices(const uint8_t *p, const uint8_t *end, const char *path,
                        const GArray *before, GString *out)
{
    while (p < end) {
        const uint8_t *dev_end, *adr;
        bool scope = *p == 0x10;
        g_autofree char *name = NULL;
        g_autoptr(GArray) bodies = NULL;
        unsigned devices;

        aml_expect(&p, scope ? "\x10" : "\x5b\x82", scope ? 1 : 2);
        dev_end = aml_package_end(&p);
        g_assert_true(dev_end <= end);
        name = g_strdup_printf("%s.%.3s", path, p);
        g_assert_cmphex(p[3], ==, '_');
        bodies = aml_find(before, p, &devices);
        g_assert_cmpint(devices, ==, scope);
        p += 4;
        adr = scope ? g_array_index(bodies, AmlBody, 0).begin : p;
        aml_expect(&adr, "\x08_ADR", 5);
        g_string_append_printf(out, "%s adr=%" PRIx64, name, aml_integer(&adr));
        if (!scope) {
            p = adr;
        }
        if (*p == 0x08) {
            aml_expect(&p, "\x08_DSD", 5);
            aml_dsd(&p, out);
        }
        g_string_append_c(out, '\n');
        aml_devices(p, dev_end, name, bodies, out);
        p = dev_end;
    }
    g_assert_true(p == end);
}

/*
 * Every re-opened scope of a host bridge that begins with its node, with a PCI
 * Device, or with the scope of one
 */
static char *describe_dsdt(const GByteArray *tables)
{
    GString *out = g_string_new(NULL);
    const uint8_t *end, *dsdt = find_table(tables, "DSDT", &end), *p;

    for (p = dsdt + 36; p < end; p++) {
        const uint8_t *body = p + 1, *scope_end;

        if (*p != 0x10) {
            continue;
        }
        scope_end = aml_package_end(&body);
        if (scope_end <= end && body + 12 < scope_end &&
            !memcmp(body, "\\\x2e_SB_PC", 8) &&
            (body[10] == 0x10 || !memcmp(body + 10, "\x5b\x82", 2) ||
             !memcmp(body + 10, "\x08_PXM", 5))) {
            g_autofree char *name = g_strdup_printf("%.4s", body + 6);
            g_autoptr(GArray) all = g_array_new(false, false, sizeof(AmlBody));
            g_autoptr(GArray) bridge = NULL;
            AmlBody before = { dsdt + 36, p };
            unsigned devices;

            g_array_append_val(all, before);
            bridge = aml_find(all, body + 6, &devices);
            g_assert_cmpint(devices, ==, 1);
            body += 10;
            if (!memcmp(body, "\x08_PXM", 5)) {
                body += 5;
                g_string_append_printf(out, "%s pxm=%" PRIu64 "\n", name,
                                       aml_integer(&body));
            }
            aml_devices(body, scope_end, name, bridge, out);
            p = scope_end - 1;
        }
    }
    return g_string_free(out, false);
}

/* ACPI 6.5, 5.2.16.2 Memory Affinity and 5.2.16.6 Generic Initiator Affinity */
static char *describe_srat(const GByteArray *tables)
{
    GString *out = g_string_new(NULL);
    const uint8_t *end, *p = find_table(tables, "SRAT", &end);

    for (p += 48; p < end; p += p[1]) {
        g_assert_cmpint(p[1], >, 1);
        if (p[0] == 1 && ldl_le_p(p + 28) == 1) {
            g_string_append_printf(out, "memory base=0x%" PRIx64
                                   " size=0x%" PRIx64 " pxm=%u\n",
                                   ldq_le_p(p + 8), ldq_le_p(p + 16),
                                   ldl_le_p(p + 2));
        } else if (p[0] == 5) {
            g_string_append_printf(out, "initiator pxm=%u\n", ldl_le_p(p + 4));
        }
    }
    g_assert_true(p == end);
    return g_string_free(out, false);
}

/* Command lines */

#define MEM(n, size) "-object memory-backend-file,id=m" #n ",mem-path=$D/m" #n \
                     ",size=" size ",share=on "
#define NODE(n) "-numa node,nodeid=" #n ",memdev=m" #n " "
#define ONE_NODE "-machine virt -m 128M " MEM(0, "128M") NODE(0)
#define RP(name, bus, addr, chassis) "-device pcie-root-port,id=" name ",bus=" \
    bus ",addr=" addr ",chassis=" #chassis " "
#define PXB(name, nr) "-device pxb-pcie,id=" name ",bus=pcie.0,bus_nr=" nr " "
#define GPU(name, bus) "-device pci-testdev,id=" name ",bus=" bus " "
#define GI(id, dev, node) "-object acpi-generic-initiator,id=" id ",pci-dev=" \
    dev ",node=" #node " "
#define EGM(id, dev, node) "-object acpi-egm-memory,id=" id ",pci-dev=" dev \
                           ",node=" #node " "

#define IN_NODE0 " base=0x40000000 size=0x8000000 pxm=0\n"

typedef struct {
    const char *name;
    const char *needs[2];   /* type and property; not every QEMU has it */
    const char *args;
    const char *dsdt;
    const char *srat;       /* NULL: not compared */
    const char *name_in_dsdt;   /* NULL, or a name that DSDT has besides */
} TableCase;

static const TableCase table_cases[] = {
    {
        .name = "none",
        .args = ONE_NODE RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0"),
        .dsdt = "",
        .srat = "memory base=0x40000000 size=0x8000000 pxm=0\n",
    }, {
        .name = "root-bus",
        .args = ONE_NODE "-device pci-testdev,id=dev0,bus=pcie.0,addr=1f.0 "
                EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.SF8 adr=1f0000" IN_NODE0,
        .srat = "memory base=0x40000000 size=0x8000000 pxm=0\n",
    }, {
        .name = "root-port",
        .args = ONE_NODE RP("rp0", "pcie.0", "2.0,multifunction=on", 1)
                RP("rp1", "pcie.0", "2.3", 2)
                GPU("dev0", "rp1") GPU("nic", "rp0") EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S13 adr=20003\n"
                "PCI0.S13.S00 adr=0" IN_NODE0,
    }, {
        .name = "pxb",
        .args = ONE_NODE PXB("pxb", "32") RP("rp0", "pxb", "0", 1)
                GPU("dev0", "rp0") EGM("egm0", "dev0", 0),
        .dsdt = "PC20 pxm=0\n"
                "PC20.S00 adr=0\n"
                "PC20.S00.S00 adr=0" IN_NODE0,
    }, {
        .name = "pxb-with-node",
        .args = ONE_NODE PXB("pxb", "32,numa_node=0") RP("rp0", "pxb", "0", 1)
                GPU("dev0", "rp0") EGM("egm0", "dev0", 0),
        .dsdt = "PC20.S00 adr=0\n"
                "PC20.S00.S00 adr=0" IN_NODE0,
    }, {
        .name = "pxb-bus-number-below-16",
        .args = ONE_NODE PXB("pxb", "10") RP("rp0", "pxb", "0", 1)
                GPU("dev0", "rp0") EGM("egm0", "dev0", 0),
        .dsdt = "PC0A pxm=0\n"
                "PC0A.S00 adr=0\n"
                "PC0A.S00.S00 adr=0" IN_NODE0,
    }, {
        .name = "switch",
        .args = ONE_NODE PXB("pxb", "64") RP("rp0", "pxb", "0", 1)
                "-device x3130-upstream,id=up,bus=rp0 "
                "-device xio3130-downstream,id=d0,bus=up,chassis=2,addr=0 "
                "-device xio3130-downstream,id=d1,bus=up,chassis=3,addr=1 "
                "-device xio3130-downstream,id=d2,bus=up,chassis=4,addr=2 "
                GPU("dev0", "d0") GPU("nic", "d1") GPU("dev2", "d2")
                EGM("egm0", "dev0", 0) EGM("egm2", "dev2", 0),
        .dsdt = "PC40 pxm=0\n"
                "PC40.S00 adr=0\n"
                "PC40.S00.S00 adr=0\n"
                "PC40.S00.S00.S00 adr=0\n"
                "PC40.S00.S00.S00.S00 adr=0" IN_NODE0
                "PC40.S00.S00.S10 adr=20000\n"
                "PC40.S00.S00.S10.S00 adr=0" IN_NODE0,
    }, {
        .name = "switch-below-switch",
        .args = ONE_NODE RP("rp0", "pcie.0", "3", 1)
                "-device x3130-upstream,id=up,bus=rp0 "
                "-device xio3130-downstream,id=d0,bus=up,chassis=2,addr=5 "
                "-device x3130-upstream,id=up2,bus=d0 "
                "-device xio3130-downstream,id=d1,bus=up2,chassis=3,addr=6 "
                GPU("dev0", "d1") EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S18 adr=30000\n"
                "PCI0.S18.S00 adr=0\n"
                "PCI0.S18.S00.S28 adr=50000\n"
                "PCI0.S18.S00.S28.S00 adr=0\n"
                "PCI0.S18.S00.S28.S00.S30 adr=60000\n"
                "PCI0.S18.S00.S28.S00.S30.S00 adr=0" IN_NODE0,
    }, {
        .name = "multifunction",
        .args = ONE_NODE RP("rp0", "pcie.0", "2", 1)
                "-device pci-testdev,id=f0,bus=rp0,addr=0.0,multifunction=on "
                "-device pci-testdev,id=f1,bus=rp0,addr=0.1 "
                "-device pci-testdev,id=f7,bus=rp0,addr=0.7 "
                EGM("egm7", "f7", 0) EGM("egm0", "f0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0
                "PCI0.S10.S07 adr=7" IN_NODE0,
    }, {
        .name = "pci-bridge",
        .args = ONE_NODE "-device pcie-pci-bridge,id=b0,bus=pcie.0,addr=4 "
                "-device pci-bridge,id=b1,bus=b0,addr=8,chassis_nr=9 "
                "-device pci-testdev,id=dev0,bus=b1,addr=9 "
                EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S20 adr=40000\n"
                "PCI0.S20.S40 adr=80000\n"
                "PCI0.S20.S40.S48 adr=90000" IN_NODE0,
    }, {
        /* As production does it; the objects come in no particular order. */
        .name = "2-sockets",
        .args = "-machine virt -smp 2,sockets=2 -m 384M "
                MEM(0, "128M") MEM(1, "256M")
                "-numa node,nodeid=0,memdev=m0,cpus=0 "
                "-numa node,nodeid=1,memdev=m1,cpus=1 "
                PXB("pxb1", "0x40") PXB("pxb0", "0x20")
                RP("rp3", "pxb1", "1", 4) RP("rp2", "pxb1", "0", 3)
                RP("rp1", "pxb0", "1", 2) RP("rp0", "pxb0", "0", 1)
                GPU("dev3", "rp3") GPU("dev0", "rp0") GPU("dev1", "rp1")
                GPU("dev2", "rp2") EGM("a", "dev3", 1) EGM("b", "dev2", 1)
                EGM("c", "dev1", 0) EGM("d", "dev0", 0),
        .dsdt = "PC20 pxm=0\n"
                "PC20.S00 adr=0\n"
                "PC20.S00.S00 adr=0" IN_NODE0
                "PC20.S08 adr=10000\n"
                "PC20.S08.S00 adr=0" IN_NODE0
                "PC40 pxm=1\n"
                "PC40.S00 adr=0\n"
                "PC40.S00.S00 adr=0 base=0x48000000 size=0x10000000 pxm=1\n"
                "PC40.S08 adr=10000\n"
                "PC40.S08.S00 adr=0 base=0x48000000 size=0x10000000 pxm=1\n",
        .srat = "memory base=0x40000000 size=0x8000000 pxm=0\n"
                "memory base=0x48000000 size=0x10000000 pxm=1\n",
    }, {
        /* Nodes without memory in between, and the biggest DIMMs one can buy */
        .name = "4-sockets",
        .args = "-machine virt -smp 4,sockets=4 -m 7T "
                MEM(0, "1T") MEM(2, "1536G") MEM(3, "2T") MEM(5, "2560G")
                NODE(0) "-numa node,nodeid=1 " NODE(2) NODE(3)
                "-numa node,nodeid=4 " NODE(5)
                RP("rp0", "pcie.0", "1", 1)
                PXB("pxb1", "64") RP("rp1", "pxb1", "2", 2)
                PXB("pxb2", "128") RP("rp2", "pxb2", "3", 3)
                PXB("pxb3", "192") RP("rp3", "pxb3", "4", 4)
                GPU("dev0", "rp0") GPU("dev1", "rp1") GPU("dev2", "rp2")
                GPU("dev3", "rp3")
                EGM("egm0", "dev0", 0) EGM("egm1", "dev1", 2)
                EGM("egm2", "dev2", 3) EGM("egm3", "dev3", 5),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S08 adr=10000\n"
                "PCI0.S08.S00 adr=0 base=0x40000000 size=0x10000000000 pxm=0\n"
                "PC40 pxm=2\n"
                "PC40.S10 adr=20000\n"
                "PC40.S10.S00 adr=0 base=0x10040000000 size=0x18000000000 pxm=2\n"
                "PC80 pxm=3\n"
                "PC80.S18 adr=30000\n"
                "PC80.S18.S00 adr=0 base=0x28040000000 size=0x20000000000 pxm=3\n"
                "PCC0 pxm=5\n"
                "PCC0.S20 adr=40000\n"
                "PCC0.S20.S00 adr=0 base=0x48040000000 size=0x28000000000 pxm=5\n",
        .srat = "memory base=0x40000000 size=0x10000000000 pxm=0\n"
                "memory base=0x10040000000 size=0x18000000000 pxm=2\n"
                "memory base=0x28040000000 size=0x20000000000 pxm=3\n"
                "memory base=0x48040000000 size=0x28000000000 pxm=5\n",
    }, {
        .name = "base-2-mib",
        .args = "-machine virt -m 258M " MEM(0, "130M") MEM(1, "128M")
                NODE(0) NODE(1) RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                EGM("egm0", "dev0", 1),
        .dsdt = "PCI0 pxm=1\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0 base=0x48200000 size=0x8000000 pxm=1\n",
        .srat = "memory base=0x40000000 size=0x8200000 pxm=0\n"
                "memory base=0x48200000 size=0x8000000 pxm=1\n",
    }, {
        .name = "generic-initiators",
        /* In the order of their nodes, whatever their ids and devices are */
        .args = ONE_NODE "-numa node,nodeid=1 -numa node,nodeid=2 "
                "-numa node,nodeid=3 -numa node,nodeid=4 "
                RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                RP("rp1", "pcie.0", "3", 2) GPU("nic", "rp1")
                GI("c", "dev0", 4) GI("a", "dev0", 2) GI("d", "dev0", 1)
                GI("b", "nic", 3) GI("e", "nic", 0) EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
        .srat = "memory base=0x40000000 size=0x8000000 pxm=0\n"
                "initiator pxm=0\n"
                "initiator pxm=1\n"
                "initiator pxm=2\n"
                "initiator pxm=3\n"
                "initiator pxm=4\n",
    }, {
        .name = "hmat-and-hotplug-memory",
        .args = "-machine virt,hmat=on -m 128M,slots=2,maxmem=1G "
                MEM(0, "128M")
                "-numa node,nodeid=0,memdev=m0,cpus=0 "
                "-numa hmat-lb,initiator=0,target=0,hierarchy=memory,"
                "data-type=access-latency,latency=10 "
                "-numa hmat-lb,initiator=0,target=0,hierarchy=memory,"
                "data-type=access-bandwidth,bandwidth=10G "
                RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
        .srat = "memory base=0x40000000 size=0x8000000 pxm=0\n",
    }, {
        .name = "highmem-off",
        .args = "-machine virt,highmem=off -m 128M " MEM(0, "128M") NODE(0)
                RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
    }, {
        .name = "highmem-ecam-off",
        .args = "-machine virt,highmem-ecam=off,highmem-mmio=off -m 128M "
                MEM(0, "128M") NODE(0)
                RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
    }, {
        .name = "cxl-host-bridge",
        .args = "-machine virt$CXL -m 128M " MEM(0, "128M") NODE(0)
                "-device pxb-cxl,id=cxl,bus=pcie.0,bus_nr=16 "
                "-device cxl-rp,id=crp,bus=cxl,chassis=1,slot=1 "
                GPU("dev0", "crp") PXB("pxb", "32") RP("rp0", "pxb", "0", 2)
                GPU("dev1", "rp0") RP("rp1", "pcie.0", "5", 3)
                GPU("dev2", "rp1")
                EGM("egm0", "dev0", 0) EGM("egm1", "dev1", 0)
                EGM("egm2", "dev2", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S28 adr=50000\n"
                "PCI0.S28.S00 adr=0" IN_NODE0
                "PC10 pxm=0\n"
                "PC10.S00 adr=0\n"
                "PC10.S00.S00 adr=0" IN_NODE0
                "PC20 pxm=0\n"
                "PC20.S00 adr=0\n"
                "PC20.S00.S00 adr=0" IN_NODE0,
    }, {
        .name = "acpi-pci-hotplug",
        .needs = { "acpi-ged", "acpi-pci-hotplug-with-bridge-support" },
        /* It comes with the Generic Event Device, and that with firmware. */
        .args = "-global acpi-ged.acpi-pci-hotplug-with-bridge-support=on "
                "-bios $D/firmware " ONE_NODE
                RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                PXB("pxb", "32") RP("rp1", "pxb", "0", 2) GPU("dev1", "rp1")
                "-device pcie-pci-bridge,id=br,bus=pcie.0,addr=6 "
                "-device pci-bridge,id=br1,bus=br,chassis_nr=3,addr=4 "
                GPU("dev2", "br1,addr=7") GPU("nic", "br1,addr=8")
                EGM("egm0", "dev0", 0) EGM("egm1", "dev1", 0)
                EGM("egm2", "dev2", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0
                "PCI0.S30 adr=60000\n"
                "PCI0.S30.S20 adr=40000\n"
                "PCI0.S30.S20.S38 adr=70000" IN_NODE0
                "PC20 pxm=0\n"
                "PC20.S00 adr=0\n"
                "PC20.S00.S00 adr=0" IN_NODE0,
        .name_in_dsdt = "PCNT",
    }, {
        .name = "smmu-and-its",
        .args = "-machine virt,iommu=smmuv3,gic-version=3 -m 128M "
                MEM(0, "128M") NODE(0)
                RP("rp0", "pcie.0", "2", 1) GPU("dev0", "rp0")
                EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
    }, {
        .name = "smmu-per-host-bridge",
        .needs = { "arm-smmuv3", "smmu_per_bus" },
        .args = "-machine virt,gic-version=3 -m 128M " MEM(0, "128M") NODE(0)
                PXB("pxb", "1,numa_node=0") RP("rp0", "pxb", "0", 1)
                PXB("pxb1", "33") RP("rp1", "pxb1", "0", 2)
                "-device arm-smmuv3,primary-bus=pxb,id=smmu0 "
                "-device arm-smmuv3,primary-bus=pxb1,id=smmu1 "
                GPU("dev0", "rp0") GPU("dev1", "rp1")
                EGM("egm0", "dev0", 0) EGM("egm1", "dev1", 0),
        .dsdt = "PC01.S00 adr=0\n"
                "PC01.S00.S00 adr=0" IN_NODE0
                "PC21 pxm=0\n"
                "PC21.S00 adr=0\n"
                "PC21.S00.S00 adr=0" IN_NODE0,
    }, {
        .name = "highmem-mmio-size",
        .needs = { NULL, "highmem-mmio-size" },
        .args = "-machine virt,highmem-mmio-size=4T -m 128M "
                MEM(0, "128M") NODE(0)
                RP("rp0", "pcie.0", "2,pref64-reserve=1T", 1)
                GPU("dev0", "rp0") EGM("egm0", "dev0", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
    }, {
        .name = "qom-path",
        .args = ONE_NODE RP("rp0", "pcie.0", "2", 1)
                "-device pci-testdev,bus=rp0 "
                EGM("egm0", "/machine/peripheral-anon/device[0]", 0),
        .dsdt = "PCI0 pxm=0\n"
                "PCI0.S10 adr=20000\n"
                "PCI0.S10.S00 adr=0" IN_NODE0,
    },
};

static void test_tables(const void *opaque)
{
    const TableCase *c = opaque;
    QTestState *qts;
    g_autoptr(GByteArray) first = NULL;
    g_autofree char *dsdt = NULL;

    if (c->needs[1] && !has_property(c->needs[0], c->needs[1])) {
        g_test_skip("this QEMU does not have it");
        return;
    }
    qts = start(c->args);
    first = read_tables(qts);
    dsdt = describe_dsdt(first);
    g_assert_cmpstr(dsdt, ==, c->dsdt);
    if (c->name_in_dsdt) {
        const uint8_t *end, *p = find_table(first, "DSDT", &end);

        while (p + 4 <= end && memcmp(p, c->name_in_dsdt, 4)) {
            p++;
        }
        g_assert_true(p + 4 <= end);
    }
    if (c->srat) {
        g_autofree char *srat = describe_srat(first);

        g_assert_cmpstr(srat, ==, c->srat);
    }

    /* The tables are built again after each reset. */
    for (int i = 0; i < 2; i++) {
        g_autoptr(GByteArray) again = NULL;

        qtest_system_reset(qts);
        again = read_tables(qts);
        g_assert_cmpmem(again->data, again->len, first->data, first->len);
    }
    qtest_quit(qts);
}

/* 4 sockets, each with memory and 8 nodes for a GPU: the largest machine */
static void test_36_nodes(void)
{
    g_autoptr(GString) args = g_string_new("-machine virt -smp 4,sockets=4 "
                                           "-m 512M ");
    g_autoptr(GString) expected = g_string_new(NULL);
    g_autoptr(GByteArray) tables = NULL;
    g_autoptr(GString) expected_srat = g_string_new(NULL);
    g_autofree char *dsdt = NULL, *srat = NULL;
    QTestState *qts;

    for (int i = 0; i < 4; i++) {
        g_string_append_printf(expected_srat, "memory base=0x%x size=0x8000000 "
                               "pxm=%d\n", 0x40000000 + 0x8000000 * i, i);
        g_string_append_printf(args, "-object memory-backend-file,id=m%d,"
            "mem-path=$D/m%d,size=128M,share=on "
            "-numa node,nodeid=%d,memdev=m%d,cpus=%d ", i, i, i, i, i);
    }
    for (int i = 4; i < 36; i++) {
        g_string_append_printf(args, "-numa node,nodeid=%d ", i);
        g_string_append_printf(expected_srat, "initiator pxm=%d\n", i);
    }
    for (int i = 0; i < 4; i++) {
        g_string_append_printf(args,
            "-device pxb-pcie,id=pxb%d,bus=pcie.0,bus_nr=%d,numa_node=%d "
            "-device pcie-root-port,id=rp%d,bus=pxb%d,chassis=%d "
            "-device pci-testdev,id=dev%d,bus=rp%d ",
            i, 32 * (i + 1), i, i, i, i + 1, i, i);
        for (int j = 0; j < 8; j++) {
            g_string_append_printf(args, "-object acpi-generic-initiator,"
                "id=gi%d%d,pci-dev=dev%d,node=%d ", i, j, i, 4 + 8 * i + j);
        }
        g_string_append_printf(args, "-object acpi-egm-memory,id=egm%d,"
                               "pci-dev=dev%d,node=%d ", i, i, i);
        g_string_append_printf(expected, "PC%02X.S00 adr=0\n"
            "PC%02X.S00.S00 adr=0 base=0x%x size=0x8000000 pxm=%d\n",
            32 * (i + 1), 32 * (i + 1), 0x40000000 + 0x8000000 * i, i);
    }

    qts = start(args->str);
    tables = read_tables(qts);
    dsdt = describe_dsdt(tables);
    g_assert_cmpstr(dsdt, ==, expected->str);
    srat = describe_srat(tables);
    g_assert_cmpstr(srat, ==, expected_srat->str);
    qtest_quit(qts);
}

static unsigned node_distance(unsigned src, unsigned dst)
{
    return src == dst ? 10 : 11 + (src * dst + src + dst) % 240;
}

/* 2 sockets, 4 GPUs with 8 nodes each: ACPI 6.5, 5.2.17 SLIT and SRAT */
static void test_34_nodes(void)
{
    const unsigned nodes = 34;
    g_autoptr(GString) args = g_string_new("-machine virt -m 256M "
                                           MEM(0, "128M") MEM(1, "128M")
                                           NODE(0) NODE(1));
    g_autoptr(GString) expected = g_string_new(
        "memory base=0x40000000 size=0x8000000 pxm=0\n"
        "memory base=0x48000000 size=0x8000000 pxm=1\n");
    g_autoptr(GByteArray) tables = NULL;
    g_autofree char *srat = NULL;
    const uint8_t *slit, *end;
    QTestState *qts;

    for (int i = 0; i < 4; i++) {
        g_string_append_printf(args,
            "-device pxb-pcie,id=pxb%d,bus=pcie.0,bus_nr=%d,numa_node=%d "
            "-device pcie-root-port,id=rp%d,bus=pxb%d,chassis=%d "
            "-device pci-testdev,id=dev%d,bus=rp%d "
            "-object acpi-egm-memory,id=egm%d,pci-dev=dev%d,node=%d ",
            i, 32 * (i + 1), i / 2, i, i, i + 1, i, i, i, i, i / 2);
    }
    for (int i = 2; i < nodes; i++) {
        g_string_append_printf(args, "-numa node,nodeid=%d "
            "-object acpi-generic-initiator,id=gi%d,pci-dev=dev%d,node=%d ",
            i, i, (i - 2) / 8, i);
        g_string_append_printf(expected, "initiator pxm=%d\n", i);
    }
    for (int i = 0; i < nodes; i++) {
        for (int j = i + 1; j < nodes; j++) {
            g_string_append_printf(args, "-numa dist,src=%d,dst=%d,val=%u ", i,
                                   j, node_distance(i, j));
        }
    }

    qts = start(args->str);
    tables = read_tables(qts);
    srat = describe_srat(tables);
    g_assert_cmpstr(srat, ==, expected->str);
    slit = find_table(tables, "SLIT", &end) + 36;
    g_assert_cmpint(ldq_le_p(slit), ==, nodes);
    g_assert_cmpint(end - slit, ==, 8 + nodes * nodes);
    for (int i = 0; i < nodes * nodes; i++) {
        g_assert_cmpint(slit[8 + i], ==, node_distance(i / nodes, i % nodes));
    }
    qtest_quit(qts);
}

/* Options as key=value or JSON, in any order: the tables are the same. */
static void test_spelling(void)
{
    static const char *const spellings[] = {
        ONE_NODE RP("rp0", "pcie.0", "2", 1) RP("rp1", "pcie.0", "3", 2)
            GPU("dev0", "rp0") GPU("dev1", "rp1")
            EGM("egm0", "dev0", 0) EGM("egm1", "dev1", 0),
        EGM("egm1", "dev1", 0) ONE_NODE RP("rp0", "pcie.0", "2", 1)
            EGM("egm0", "dev0", 0) GPU("dev0", "rp0")
            RP("rp1", "pcie.0", "3", 2) GPU("dev1", "rp1"),
        "-object '{\"node\":0,\"id\":\"x\",\"qom-type\":\"acpi-egm-memory\","
            "\"pci-dev\":\"dev0\"}' " RP("rp1", "pcie.0", "3", 2)
            GPU("dev1", "rp1") ONE_NODE RP("rp0", "pcie.0", "2", 1)
            GPU("dev0", "rp0")
            "-object '{\"qom-type\":\"acpi-egm-memory\",\"id\":\"a\","
            "\"pci-dev\":\"/machine/peripheral/dev1\",\"node\":0}' ",
    };
    g_autoptr(GByteArray) first = NULL;

    for (int i = 0; i < ARRAY_SIZE(spellings); i++) {
        QTestState *qts = start(spellings[i]);
        GByteArray *tables = read_tables(qts);

        if (first) {
            g_assert_cmpmem(tables->data, tables->len, first->data, first->len);
            g_byte_array_unref(tables);
        } else {
            first = tables;
        }
        qtest_quit(qts);
    }
}

static void qmp_device_gone(QTestState *qts, const char *id)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                           " 'path': %s, 'property': 'realized' } }", path);

    g_assert_true(qdict_haskey(rsp, "error"));
    qobject_unref(rsp);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
}

/* The port at 00:02.0: power controller and power indicator in Slot Control */
static void set_slot_power(QTestState *qts, bool on)
{
    const uint64_t rp = ECAM_BASE + (2 << 15);
    uint8_t cap = qtest_readb(qts, rp + 0x34);

    while (qtest_readb(qts, rp + cap) != 0x10 /* PCI Express */) {
        cap = qtest_readb(qts, rp + cap + 1);
        g_assert_cmpint(cap, !=, 0);
    }
    qtest_writew(qts, rp + cap + 0x18, on ? 0x0100 : 0x0700);
}

static void assert_tables_after_reset(QTestState *qts, const char *dsdt,
                                      const char *srat)
{
    g_autoptr(GByteArray) tables = NULL;
    g_autofree char *new_dsdt = NULL, *new_srat = NULL;

    qtest_system_reset(qts);
    tables = read_tables(qts);
    new_dsdt = describe_dsdt(tables);
    new_srat = describe_srat(tables);
    g_assert_cmpstr(new_dsdt, ==, dsdt);
    g_assert_cmpstr(new_srat, ==, srat);
}

/*
 * A guest can power off the slot of a GPU, whatever unplug blockers it has and
 * whether its type can be hot-plugged or not, and the device is gone. From the
 * next reset on it is not described any more, by us or by the initiators. Nor
 * is what comes into the slot then, even under the same name: it was never
 * checked.
 */
static void test_slot_power_off(const void *type)
{
    g_autofree char *args = g_strdup_printf(
        ONE_NODE "-numa node,nodeid=1 -numa node,nodeid=2 "
        RP("rp0", "pcie.0", "2", 1) RP("rp1", "pcie.0", "3", 2)
        "-device %s,id=dev0,bus=rp0 " GPU("dev1", "rp1")
        GI("gi0", "dev0", 1) GI("gi1", "dev1", 2)
        EGM("egm0", "dev0", 0) EGM("egm1", "dev1", 0), (const char *)type);
    QTestState *qts = start(args);

    assert_tables_after_reset(qts, "PCI0 pxm=0\n"
                              "PCI0.S10 adr=20000\n"
                              "PCI0.S10.S00 adr=0" IN_NODE0
                              "PCI0.S18 adr=30000\n"
                              "PCI0.S18.S00 adr=0" IN_NODE0,
                              "memory base=0x40000000 size=0x8000000 pxm=0\n"
                              "initiator pxm=1\n"
                              "initiator pxm=2\n");
    /* It is gone at once; some types leak, and there is no event. */
    set_slot_power(qts, false);
    assert_tables_after_reset(qts, "PCI0 pxm=0\n"
                              "PCI0.S18 adr=30000\n"
                              "PCI0.S18.S00 adr=0" IN_NODE0,
                              "memory base=0x40000000 size=0x8000000 pxm=0\n"
                              "initiator pxm=2\n");

    set_slot_power(qts, true);
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': {"
                             " 'driver': 'pci-testdev', 'id': 'dev0',"
                             " 'bus': 'rp0' } }");
    assert_tables_after_reset(qts, "PCI0 pxm=0\n"
                              "PCI0.S18 adr=30000\n"
                              "PCI0.S18.S00 adr=0" IN_NODE0,
                              "memory base=0x40000000 size=0x8000000 pxm=0\n"
                              "initiator pxm=1\n"
                              "initiator pxm=2\n");
    qtest_qmp_assert_success(qts, "{ 'execute': 'quit' }");
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

/* A bridge can be unplugged, and takes the GPU below it along. */
static void test_bridge_unplugged(void)
{
    QTestState *qts = start(
        ONE_NODE RP("rp0", "pcie.0", "2", 1)
        "-device x3130-upstream,id=up,bus=rp0 "
        "-device xio3130-downstream,id=d0,bus=up,chassis=2,addr=0 "
        GPU("dev0", "d0") EGM("egm0", "dev0", 0));

    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'up' } }");
    set_slot_power(qts, false);
    qmp_device_gone(qts, "dev0");
    assert_tables_after_reset(qts, "",
                              "memory base=0x40000000 size=0x8000000 pxm=0\n");
    qtest_qmp_assert_success(qts, "{ 'execute': 'quit' }");
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_autofree char *firmware = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    tmp_dir = g_dir_make_tmp("egm-test-XXXXXX", NULL);
    g_assert_nonnull(tmp_dir);
    firmware = expand("$D/firmware");
    g_assert_true(g_file_set_contents(firmware, "", 1, NULL));

    for (int i = 0; i < ARRAY_SIZE(table_cases); i++) {
        g_autofree char *path = g_strdup_printf("acpi-egm-memory/tables/%s",
                                                table_cases[i].name);

        qtest_add_data_func(path, &table_cases[i], test_tables);
    }
    qtest_add_func("acpi-egm-memory/tables/36-nodes", test_36_nodes);
    qtest_add_func("acpi-egm-memory/tables/34-nodes", test_34_nodes);
    qtest_add_func("acpi-egm-memory/tables/spelling", test_spelling);
    qtest_add_data_func("acpi-egm-memory/tables/slot-power-off",
                        "pci-testdev", test_slot_power_off);
    /* Not every host has its ROM. */
    qtest_add_data_func("acpi-egm-memory/tables/slot-power-off/nohotplug",
                        "VGA,romfile=", test_slot_power_off);
    qtest_add_func("acpi-egm-memory/tables/bridge-unplugged",
                   test_bridge_unplugged);

    ret = g_test_run();
    remove_files();
    g_unlink(firmware);
    g_rmdir(tmp_dir);
    g_free(tmp_dir);
    return ret;
}
