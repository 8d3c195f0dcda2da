# SPDX-License-Identifier: GPL-2.0-or-later
"""virtqemud on the arm64 host of tests/host: KVM, real vfio-pci, our QEMU, the
stand-in driver, and the guest of tests/guest.

Where no guest is needed, domains are created paused: QEMU has built the machine.
"""

import contextlib
import json
import pathlib
import re
import shlex
import socket
import unittest

from egm import srat
from lib import MIB, RAM_BASE, TOP, acpi, console, process
from lib.made import need_arm64
from guest.guest import Commands, pattern
from host.host import ARM64, REGIONS, Host

PLATFORM = ARM64
KEEP = TOP / 'work/build-libvirt/host'
UEFI = '/usr/share/AAVMF/AAVMF_CODE.fd'
FIRMWARE = '/usr/local/share/qemu/firmware'
DESCRIPTOR = json.dumps({
    'description': 'UEFI', 'interface-types': ['uefi'],
    'mapping': {'device': 'flash', 'mode': 'split',
                'executable': {'filename': UEFI, 'format': 'raw'},
                'nvram-template': {'filename': '/tmp/variables', 'format': 'raw'}},
    'targets': [{'architecture': 'aarch64', 'machines': ['virt-*']}],
    'features': [], 'tags': []})

PORT = """
    <controller type='pci' index='{index}' model='pcie-expander-bus'>
      <target busNr='{busnr}'><node>{node}</node></target>
    </controller>
    <controller type='pci' index='{port}' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='{index}' slot='0x00' function='0x0'/>
    </controller>"""
GPU = """
    <hostdev mode='subsystem' type='pci' managed='{managed}'>
      <driver iommufd='{iommufd}'/>
      <source>
        <address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>
      </source>
      <alias name='ua-gpu{number}'/>
      <address type='pci' domain='0x0000' bus='{port}' slot='0x00' function='0x0'/>
    </hostdev>"""
EGM = """
    <memory model='egm'>
      {source}
      <target>{size}<node>{node}</node><pciDev>ua-gpu{number}</pciDev></target>
    </memory>"""

GUEST = """
    <kernel>/guest/vmlinuz</kernel>
    <initrd>/guest/initrd</initrd>
    <cmdline>console=ttyAMA0 quiet loglevel=1 watchdog_thresh=60 panic=-1 efi=debug</cmdline>"""
CONSOLE = """
    <serial type='dev'><source path='/dev/vport0p3'/></serial>"""


def egm_device(number, node, path=None, size=None):
    """The EGM device of a GPU; `size` in MiB."""
    return EGM.format(number=number, node=node,
                      source=f'<source><path>{path}</path></source>' if path else '',
                      size=f"<size unit='MiB'>{size}</size>" if size else '')


def domain(name, *gpus, size=128, iommufd='no', managed='yes', guest=False, ordinary=False):
    """A domain, each GPU of which has a node of its own, of `size` MiB.

    gpus: numbers; or pairs of a number and the path of the region
    guest: whether it has a kernel and a console
    ordinary: whether its memory is the host's, not EGM
    """
    devices, cells = '', ''
    for node, gpu in enumerate(gpus):
        number, path = gpu if isinstance(gpu, tuple) else (gpu, None)
        words = dict(zip(('domain', 'bus', 'slot', 'function'),
                         re.split('[:.]', PLATFORM.gpus[number])))
        words |= {'number': number, 'node': node, 'index': 2 * node + 1,
                  'port': 2 * node + 2, 'busnr': 32 * (node + 1), 'iommufd': iommufd,
                  'managed': managed}
        devices += (PORT + GPU).format(**words)
        devices += '' if ordinary else egm_device(number, node, path)
        cells += f"<cell id='{node}' cpus='{node}' memory='{size}' unit='MiB'/>"
    return f"""<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{size * len(gpus)}</memory>
  <vcpu>{len(gpus)}</vcpu>
  <os>
    <type arch='aarch64' machine='virt'>hvm</type>
    <loader readonly='yes' type='pflash' stateless='yes' format='raw'>{UEFI}</loader>{GUEST if guest else ''}
  </os>
  <features><acpi/><gic version='3'/></features>
  <cpu mode='host-passthrough'>
    <numa>{cells}</numa>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <controller type='pci' index='0' model='pcie-root'>
      <pcihole64 unit='TiB'>1</pcihole64>
    </controller>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>{devices}{CONSOLE if guest else ''}
  </devices>
</domain>
"""


class Guest(Commands, console.Terminal):
    """The guest of a domain, over its console."""


class Daemon(unittest.TestCase):
    """Region egm4 has GPUs 0 and 1, egm5 has GPU 2. One host, and one daemon."""

    @classmethod
    def setUpClass(cls):
        if not (TOP / 'work/build-libvirt/build.ninja').exists():
            raise unittest.SkipTest('libvirt is not configured: make libvirt')
        need_arm64()
        initrd = TOP / 'work/build-libvirt/host.initrd'
        process.output(TOP / 'libvirt/host/prepare', initrd)
        cls.host = Host(PLATFORM, KEEP)
        args = cls.host.vm.args
        index = args.index('-initrd') + 1
        both = pathlib.Path(cls.host.vm.temp_dir) / 'initrd'
        # Archives start at multiples of 4 bytes.
        both.write_bytes(b''.join(part + bytes(-len(part) % 512) for part in (
            pathlib.Path(args[index]).read_bytes(), initrd.read_bytes())))
        args[index] = str(both)
        cls.host.__enter__()
        cls.addClassCleanup(cls.host.__exit__, None, None, None)
        cls.host.boot()
        cls.host.check(f'mkdir -p /usr/share/AAVMF; cp /guest/uefi {UEFI}; '
                       f'truncate -s 64M {UEFI} /tmp/variables')
        cls.host.check('. /etc/libvirt-host 2>&1')

    def setUp(self):
        self.driver = self.enterContext(contextlib.ExitStack())
        self.load()
        self.addCleanup(self.host.run, 'for d in $(virsh -q list --name); do '
                        'virsh -q destroy $d; done; '
                        'for d in $(virsh -q list --all --name); do '
                        'virsh -q undefine $d; done')

    def load(self, **parameters):
        """Load the stand-in, in place of one that is loaded."""
        self.driver.close()
        self.driver.enter_context(self.host.standin(**parameters))

    def tearDown(self):
        bad = self.host.run('dmesg -c | grep -E '
                            '"BUG|WARNING|DMAR.*fault|Oops|Call Trace"')
        self.assertEqual(bad[1], '')

    def answer(self, line):
        """Exit status and output of virsh."""
        return self.host.run(f'virsh -q {line} 2>&1')

    def virsh(self, line):
        """Output of a command that succeeds."""
        status, text = self.answer(line)
        self.assertEqual(status, 0, text)
        return text

    def file(self, xml):
        """Write a file on the host, in lines that its terminal takes; give its path."""
        path = '/tmp/domain.xml'
        self.host.check(f'rm -f {path}')
        for at in range(0, len(xml), 2000):
            self.host.check(f'printf %s {shlex.quote(xml[at:at + 2000])} >> {path}'
                            .replace('\n', ' '))
        return path

    def create(self, *args, **keywords):
        """Start a domain; give QEMU's process."""
        self.virsh(f'create --validate --paused {self.file(domain(*args, **keywords))}')
        return self.pid(args[0])

    def pid(self, name):
        """QEMU's process of a domain that runs."""
        return self.host.check(f'cat /run/libvirt/qemu/{name}.pid').strip()

    def refused(self, args, *reasons, **keywords):
        """Starting the domain fails for these reasons."""
        status, text = self.answer(
            f'create --paused {self.file(domain(*args, **keywords))}')
        self.assertNotEqual(status, 0, text)
        for reason in reasons:
            self.assertIn(reason, text)

    def owner(self, path):
        """User, group and access of a file."""
        return self.host.check(f"stat -c '%u:%g %a' {path}").strip()

    def test_life(self):
        """Define, start, look, destroy, start again."""
        self.virsh(f'define --validate {self.file(domain("one", 0))}')
        self.assertNotIn('/dev/egm', self.virsh('dumpxml one'))
        for _ in range(2):
            self.virsh('start --paused one')
            self.assertIn('<path>/dev/egm4</path>', self.virsh('dumpxml one'))
            self.assertNotIn('/dev/egm', self.virsh('dumpxml --inactive one'))
            self.assertIn('paused', self.virsh('domstate one'))
            self.virsh('destroy one')
        self.assertNotIn('/dev/egm', self.virsh('dumpxml one'))

    def ask(self, name, command, **arguments):
        """What QEMU answers to a QMP command."""
        line = shlex.quote(json.dumps({'execute': command, 'arguments': arguments}))
        return json.loads(self.virsh(f'qemu-monitor-command {name} {line}'))['return']

    def queried(self, name):
        """The EGM of each GPU: what the query shows, and the node of the object."""
        def own(egm, key):
            return self.ask(name, 'qom-get', path=f"/objects/{egm['id']}", property=key)

        return {own(egm, 'pci-dev'): {**egm, 'node': own(egm, 'node')}
                for egm in self.ask(name, 'query-acpi-egm-memory')}

    def test_node_device(self):
        """A GPU's node device has the region of its socket; no other node device has one."""
        found = {}
        for name in self.virsh('nodedev-list --cap pci').split():
            text = self.virsh(f'nodedev-dumpxml {name}')
            if '<egm>' in text:
                found[name] = re.search(r'<egm>\s*<path>(.*)</path>\s*'
                                        r"<size unit='KiB'>(\d+)</size>\s*</egm>", text).groups()
        sizes = {pxm: int(self.host.check(f'cat /sys/class/egm/egm{pxm}/egm_size'), 0)
                 for pxm in (4, 5)}
        self.assertEqual(found, {
            'pci_' + re.sub('[:.]', '_', gpu): (f'/dev/egm{pxm}', str(sizes[pxm] >> 10))
            for gpu, pxm in zip(PLATFORM.gpus, (4, 4, 5))})

    def test_query(self):
        """Two GPUs, two regions, two nodes; for humans as well."""
        self.create('two', 0, 2)
        queried = self.queried('two')
        for gpu, (node, region) in {0: (0, 4), 2: (1, 5)}.items():
            egm = queried[f'ua-gpu{gpu}']
            self.assertEqual(
                (egm['node'], egm['size'], egm['region']['name'], egm['host-address']),
                (node, 128 * MIB, f'egm{region}', PLATFORM.gpus[gpu]))
            self.assertIn(PLATFORM.gpus[gpu], egm['region']['gpus'])
        text = self.virsh('qemu-monitor-command --hmp two info egm')
        self.assertIn(queried['ua-gpu2']['acpi-path'], text)
        self.assertEqual(self.ask('two', 'qom-get', path='/machine',
                                  property='highmem-mmio-size'), 1 << 40)

    @contextlib.contextmanager
    def guest(self, *args, **keywords):
        """A domain whose guest is up."""
        guest = Guest(KEEP / self.id().rsplit('.', 1)[1])
        with socket.socket(socket.AF_UNIX) as connection:
            # What QEMU writes to a port that nobody listens to is lost.
            connection.connect(self.host.ports[2])
            guest.attach(connection)
            xml = self.file(domain(*args, guest=True, **keywords))
            try:
                self.virsh(f'create --validate {xml}')
                guest.boot()
                yield guest
            finally:
                self.answer(f'destroy {args[0]}')

    def test_guest(self):
        """A guest of KVM finds the memory of its cell, and it is the region's."""
        with self.guest('one', 0, size=256) as guest:
            self.verify(guest, {32: (RAM_BASE, 256 * MIB, 0)})
            self.page(guest, 0, 4, RAM_BASE)

    def test_two_cells(self):
        """Two cells are those of two regions, also of a domain that starts again."""
        second = RAM_BASE + 256 * MIB
        for _ in range(2):
            with self.guest('two', 0, 2, size=256) as guest:
                self.verify(guest, {32: (RAM_BASE, 256 * MIB, 0),
                                    64: (second, 256 * MIB, 1)})
                self.page(guest, 0, 4, RAM_BASE)
                self.page(guest, 1, 5, second)

    def page(self, guest, node, pxm, base):
        """What the guest writes to a node's page is in the region."""
        address = guest.page(node)
        self.assertEqual(self.host.region(pxm, address - base, 4096), pattern(4096))

    def verify(self, guest, gpus):
        """What QEMU's tables and the driver report: base, size and node of each GPU's
        cell, by the number of its host bridge."""
        report = guest.report()
        tables = guest.tables()
        devices = {d.path: d for d in acpi.egm_devices(tables['DSDT'])}
        self.assertEqual({d.bus: (d.base, d.size, d.pxm)
                          for d in devices.values()}, gpus)
        cells = {(a.base, a.size, a.pxm)
                 for a in srat.read(tables['SRAT']).affinities if a.enabled}
        self.assertEqual(cells, set(gpus.values()))
        # Linux writes all four letters of a name.
        found = {re.sub(r'_+(?=\.|$)', '', e.path): (e.base, e.size, e.pxm)
                 for e in report.egm.values()}
        self.assertEqual(found, {path: (d.base, d.size, d.pxm)
                                 for path, d in devices.items()})
        for address, egm in report.egm.items():
            self.assertEqual(report.nodes[address], egm.node)

    def test_cgroup(self):
        """In the domain's cgroup, its region can be opened, the other cannot."""
        pid = self.create('one', 0)
        group = self.host.check(f'cut -d: -f3 /proc/{pid}/cgroup').strip()
        opens = ('sh -c "echo \\$\\$ > /sys/fs/cgroup{group}/cgroup.procs; '
                 'exec 3<> /dev/egm{pxm}" 2>&1')
        status, text = self.host.run(opens.format(group=group, pxm=5))
        self.assertNotEqual(status, 0)
        self.assertIn('Operation not permitted', text)
        # In use, but allowed
        _, text = self.host.run(opens.format(group=group, pxm=4))
        self.assertIn('busy', text)

    def test_device_node(self):
        """In the domain it is QEMU's; outside, nothing changes."""
        before = self.owner('/dev/egm4')
        pid = self.create('one', 0)
        self.assertEqual(self.owner(f'/proc/{pid}/root/dev/egm4'), '1000:1000 600')
        self.assertEqual(self.owner('/dev/egm4'), before)
        # QEMU itself: not root, and without a node of the other region.
        self.assertIn('Uid:\t1000\t1000', self.host.check(f'cat /proc/{pid}/status'))
        nodes = self.host.check(f'ls /proc/{pid}/root/dev')
        self.assertIn('egm4', nodes)
        self.assertNotIn('egm5', nodes)
        self.virsh('destroy one')
        self.assertEqual(self.owner('/dev/egm4'), before)

    def restart(self, command='virtqemud -d'):
        """End the daemon, and start a new one."""
        self.host.check('kill $(pidof virtqemud); while pidof virtqemud; do '
                        f'sleep 0.2; done; {command} 2>&1')

    def configure(self, line):
        """Restart the daemon with another line in its configuration, for a test."""
        conf = '/usr/local/etc/libvirt/qemu.conf'
        key = line.split()[0]
        self.host.check(f'cp {conf} /tmp/; sed -i "/^{key} /d" {conf}; '
                        f'echo {shlex.quote(line)} >> {conf}')
        self.restart()
        self.addCleanup(self.restart)
        self.addCleanup(self.host.check, f'mv /tmp/qemu.conf {conf}')

    def test_apparmor(self):
        """Confined by AppArmor, a guest has its region and nothing more, with a VFIO
        container and with iommufd."""
        profiles = '/usr/local/etc/apparmor.d'
        load = f'apparmor_parser -{{}} {profiles}/usr.*virtqemud {profiles}/usr.*helper 2>&1'
        self.host.check(load.format('r'))
        self.addCleanup(self.host.check, load.format('R'))
        self.configure('security_driver = "apparmor"')
        self.enterContext(self.host.pfnmap())
        self.host.check('dmesg -c')
        for iommufd in 'no', 'yes':
            with self.subTest(iommufd=iommufd):
                self.confined(profiles, iommufd)
        # QEMU asks for nothing that it may not have.
        self.assertEqual(self.host.check('dmesg | grep DENIED || :'), '')

    def confined(self, profiles, iommufd):
        """A domain that AppArmor confines, from its start to its end."""
        pid = self.create('one', 0, iommufd=iommufd)
        uuid = self.virsh('domuuid one').strip()
        self.assertEqual(self.host.check(f'cat /proc/{pid}/attr/current').strip(),
                         f'libvirt-{uuid} (enforce)')
        self.assertIn(PLATFORM.gpus[0], self.queried('one')['ua-gpu0']['region']['gpus'])
        files = self.host.check(f'cat {profiles}/libvirt/libvirt-{uuid}.files')
        self.assertIn('"/dev/egm4" rwk', files)
        self.assertNotIn('egm5', files)
        if iommufd == 'yes':
            # The rule of a descriptor, which is added before those of all labels
            self.assertRegex(files, r'"/dev/vfio/devices/vfio\d+" rw')
        self.refused(('two', 1), "in use by domain 'one'", iommufd=iommufd)
        self.virsh('destroy one')
        self.assertNotIn(uuid, self.host.check('cat /sys/kernel/security/apparmor/profiles'))

    def test_no_namespace(self):
        """Without a mount namespace, the host's own node is QEMU's meanwhile."""
        before = self.owner('/dev/egm4')
        self.configure('namespaces = []')
        self.create('one', 0)
        self.assertEqual(self.owner('/dev/egm4'), '1000:1000 600')
        self.refused(('two', 1), "in use by domain 'one'")
        self.assertEqual(self.owner('/dev/egm4'), '1000:1000 600')
        self.virsh('destroy one')
        self.assertEqual(self.owner('/dev/egm4'), before)

    def test_in_use(self):
        """A second domain is refused, and takes nothing from the first."""
        pid = self.create('one', 0)
        for gpu in (1, (1, '/dev/egm4')):
            self.refused(('two', gpu), "Extended GPU Memory '/dev/egm4' is in use "
                                       "by domain 'one'")
        self.assertEqual(self.owner(f'/proc/{pid}/root/dev/egm4'), '1000:1000 600')
        self.assertIn('paused', self.virsh('domstate one'))
        self.create('other', 2)
        self.virsh('destroy one')
        self.create('two', 1)

    def test_other_node(self):
        """Another device node of a region is that region."""
        self.host.check('mknod /dev/other c $(tr : " " < /sys/class/egm/egm4/dev)')
        self.addCleanup(self.host.check, 'rm /dev/other')
        self.create('one', 0)
        self.refused(('two', (1, '/dev/other')),
                     "Extended GPU Memory '/dev/other' is in use by domain 'one'")
        self.virsh('destroy one')
        self.create('two', (1, '/dev/other'))

    def test_path(self):
        """What else can be where a region is expected"""
        self.host.check('mkdir /tmp/directory; truncate -s 128M /tmp/file')
        self.addCleanup(self.host.check, 'rmdir /tmp/directory; rm /tmp/file')
        before = self.owner('/tmp/directory'), self.owner('/tmp/file')
        self.refused(('one', (0, '/tmp/directory')), "'/tmp/directory' can't be Extended GPU "
                     'Memory: it is neither a character device nor a regular file')
        self.assertEqual(self.owner('/tmp/directory'), before[0])
        status, text = self.answer(f'define {self.file(domain("one", (0, "egm4")))}')
        self.assertNotEqual(status, 0)
        self.assertIn("path 'egm4' of model 'egm' is not absolute", text)
        # For tests
        self.create('one', (0, '/tmp/file'))
        self.assertNotIn('region', self.queried('one')['ua-gpu0'])
        self.assertEqual(self.ask('one', 'qom-get', path='/objects/memegm0',
                                  property='mem-path'), '/tmp/file')
        self.virsh('destroy one')
        self.assertEqual(self.owner('/tmp/file'), before[1])

    def test_killed(self):
        """QEMU is killed: the region is free again."""
        pid = self.create('one', 0)
        self.host.check(f'kill -9 {pid}')
        self.gone('one')
        self.create('two', 1)

    def gone(self, name):
        """Wait until a domain is not there any more."""
        self.host.check(f'while virsh -q list --name | grep -qx {name}; do sleep 0.2; done')

    def test_restart(self):
        """A new daemon knows which regions are in use."""
        self.create('one', 0)
        self.restart()
        self.virsh('domstate one')      # waits for its thread that finds the domain again
        self.refused(('two', 1), "'/dev/egm4' is in use by domain 'one'")
        self.virsh('destroy one')
        self.create('two', 1)

    def test_restart_conflict(self):
        """A new daemon that finds two domains with one region ends neither."""
        self.create('one', 0)
        self.create('other', 2)
        self.host.check('kill $(pidof virtqemud); while pidof virtqemud; do sleep 0.2; done; '
                        'sed -i s,/dev/egm5,/dev/egm4, /run/libvirt/qemu/other.xml; '
                        'virtqemud -d 2>&1')
        for name in 'one', 'other':
            self.assertIn('paused', self.virsh(f'domstate {name}'))

    def test_failed(self):
        """A domain that does not start leaves the region and its GPUs to others."""
        size = REGIONS[5]
        # The first region is claimed before the second one turns out to be too small.
        self.refused(('one', 0, 2), 'is larger than the region', size=2 * size // MIB)
        self.create('taken', 2)
        self.refused(('one', 0, 2), 'is in use by')
        self.create('two', 1)
        self.virsh('destroy two')
        self.create('two', 0)

    def test_refused(self):
        """Errors that depend on the host."""
        size = REGIONS[5]
        self.refused(('large', 2), 'mem-path=/dev/egm5', f'size={2 * size} is larger than '
                     f'the region of {size} bytes', size=2 * size // MIB)
        self.refused(('foreign', (2, '/dev/egm4')),
                     f'host device {PLATFORM.gpus[2]} is not attached to the socket of '
                     'EGM region egm4')
        self.refused(('missing', (0, '/dev/egm9')),
                     "no region of Extended GPU Memory '/dev/egm9'")
        self.refused(('both', 0, 1), '/dev/egm4', 'in use by another memory backend')


    def test_iommufd(self):
        """QEMU gets open descriptors of the device, which has a node for QEMU, and of
        /dev/iommu, which all domains share."""
        self.enterContext(self.host.pfnmap())
        before = self.owner('/dev/iommu'), self.host.check('ls -lnR /dev/vfio')
        pid = self.create('one', 0, iommufd='yes')
        nodes = self.host.check(f'cd /proc/{pid}/root/dev; ls vfio vfio/devices; '
                                'stat -c %u vfio/devices/*')
        self.assertRegex(nodes, r'(?s)vfio/devices:\nvfio\d+\n1000\n$')
        self.assertNotRegex(nodes, r'(?m)^\d\n.*devices:')
        self.assertEqual(self.queried('one')['ua-gpu0']['host-address'], PLATFORM.gpus[0])
        self.assertNotIn('iommu', self.host.check(f'ls /proc/{pid}/root/dev'))
        files = self.host.check(f'ls -l /proc/{pid}/fd')
        self.assertIn('/dev/iommu', files)
        self.assertIn('/dev/vfio/devices/', files)
        # QEMU finds the GPU by its descriptor.
        self.assertNotIn(f'"host":"{PLATFORM.gpus[0]}"',
                         self.host.check(f'tr "\\0" " " < /proc/{pid}/cmdline'))
        self.assertEqual(self.owner('/dev/iommu'), before[0])
        self.refused(('two', 1), "in use by domain 'one'", iommufd='yes')
        self.virsh('destroy one')
        self.assertEqual((self.owner('/dev/iommu'),
                          self.host.check('ls -lnR /dev/vfio')), before)

    def test_locked_memory(self):
        """Each domain may lock its own memory, whatever others have locked."""
        for iommufd in 'no', 'yes':
            with self.subTest(iommufd=iommufd):
                # The limit is the memory and 1 GiB.
                self.create('one', 0, size=1152, iommufd=iommufd, ordinary=True)
                self.create('two', 1, size=128, iommufd=iommufd, ordinary=True)
                self.virsh('destroy one')
                self.virsh('destroy two')

    def test_locked_memory_privilege(self):
        """A daemon of root that may not choose how locked memory is counted refuses."""
        self.restart('python3 -c "import ctypes, os; '
                     'ctypes.CDLL(None).prctl(24, 24, 0, 0, 0); '     # CAP_SYS_RESOURCE
                     "os.execvp('virtqemud', ['virtqemud', '-d'])\"")
        self.addCleanup(self.restart)
        self.refused(('one', 0), 'locked memory of iommufd',
                     'Operation not permitted', iommufd='yes')

    def test_managed(self):
        """A driver that makes a region when a GPU of it is bound: the domain binds it."""
        # The daemon leaves a GPU bound that it has once found so.
        self.unbind(0, 1, 2)
        self.restart()
        for driver in 'B', 'C':
            with self.subTest(driver=driver):
                self.load(driver=driver)
                self.host.check('[ ! -e /dev/egm4 ]')
                for _ in range(2):
                    self.create('one', 0, 2)
                    self.assertEqual({gpu: egm['region']['name']
                                      for gpu, egm in self.queried('one').items()},
                                     {'ua-gpu0': 'egm4', 'ua-gpu2': 'egm5'})
                    # The region has a GPU, and gets another one.
                    self.refused(('two', 1), "'/dev/egm4' is in use by domain 'one'")
                    self.refused(('two', (1, '/dev/egm4')), "in use by domain 'one'")
                    self.virsh('destroy one')
                    self.host.check('[ ! -e /dev/egm4 ] && [ ! -e /dev/egm5 ]')
                self.create('two', (1, '/dev/egm4'))
                self.virsh('destroy two')

    def unbind(self, *gpus):
        """Take GPUs away from vfio-pci, until the end of the test."""
        for gpu in gpus:
            device = f'/sys/bus/pci/devices/{PLATFORM.gpus[gpu]}'
            self.host.check(f'echo > {device}/driver_override; [ ! -e {device}/driver ] || '
                            f'echo {PLATFORM.gpus[gpu]} > {device}/driver/unbind')
            self.addCleanup(self.host.check, f'echo vfio-pci > {device}/driver_override; '
                            f'[ -e {device}/driver ] || '
                            f'echo {PLATFORM.gpus[gpu]} > /sys/bus/pci/drivers_probe')

    def config(self, command, xml, *reasons):
        """Change the configuration of domain 'one'; it fails for these reasons, if any."""
        status, text = self.answer(f'{command} one {self.file(xml)} --config')
        self.assertEqual(bool(status), bool(reasons), text)
        for reason in reasons:
            self.assertIn(reason, text)

    def gpus(self):
        """GPUs of the EGM devices in the configuration of domain 'one'"""
        return re.findall('<pciDev>(.*?)</pciDev>', self.virsh('dumpxml --inactive one'))

    def test_config(self):
        """Changes to the configuration find an EGM device by the GPU that it names."""
        xml = domain('one', 0, 2).replace(
            '<vcpu>', "<maxMemory slots='1' unit='MiB'>1024</maxMemory><vcpu>").replace(
            '</numa>', "<cell id='2' memory='64' unit='MiB'/></numa>")
        self.virsh(f'define --validate {self.file(xml)}')
        self.config('update-device', egm_device(2, 1, '/dev/egm5'))
        self.assertEqual(self.gpus(), ['ua-gpu0', 'ua-gpu2'])
        self.assertEqual(self.virsh('dumpxml --inactive one').count('/dev/egm5'), 1)
        dimm = ("<memory model='dimm'><target><size unit='MiB'>128</size>"
                '<node>2</node></target></memory>')
        self.config('update-device', dimm, 'memory not found')
        # EGM takes no slot.
        self.config('attach-device', dimm)
        self.config('attach-device', dimm, 'no free memory device slot')
        self.config('detach-device', egm_device(0, 0, size=64))
        self.assertEqual(self.gpus(), ['ua-gpu2'])
        self.config('detach-device', egm_device(0, 0), 'not found')
        self.config('attach-device', egm_device(0, 0, size=256),
                    "size of model 'egm' is 262144 KiB, but guest node '0' has 131072 KiB")
        self.config('attach-device', '<acpiEgmMemory><pciDev>ua-gpu0</pciDev>'
                    '<numaNode>0</numaNode></acpiEgmMemory>')
        self.assertEqual(self.gpus(), ['ua-gpu2', 'ua-gpu0'])

    def test_sizes(self):
        """The size of the cell, shares of it, or none: all are the cell's."""
        parts = domain('one', 0).split(egm_device(0, 0))
        for size in None, 64, 128:
            self.virsh('define --validate '
                       f'{self.file(egm_device(0, 0, size=size).join(parts))}')
            self.assertIn("<size unit='KiB'>131072</size>", self.virsh('dumpxml one'))
            self.virsh('undefine one')
        # libvirt rounds a cell up.
        xml = domain('one', 0).replace("memory='128' unit='MiB'", "memory='130100' unit='KiB'")
        self.virsh(f'create --validate --paused {self.file(xml)}')
        live = self.virsh('dumpxml one')
        self.assertIn("memory='131072'", live)
        self.assertIn("<size unit='KiB'>131072</size>", live)
        self.virsh('destroy one')
        self.virsh(f'define --validate {self.file(live)}')

    def test_convert(self):
        """A domain becomes a command line on a machine that has nothing that it needs."""
        self.driver.close()
        self.host.check('rm /dev/iommu')
        self.addCleanup(self.host.check, 'mknod -m 600 /dev/iommu c '
                        '$(tr : " " < /sys/class/misc/iommu/dev)')
        self.virsh(f'define --validate {self.file(domain("one", 0, iommufd="yes"))}')
        text = self.virsh('domxml-to-native qemu-argv --domain one')
        self.assertIn('"mem-path":"/dev/egm-of/ua-gpu0"', text)
        self.assertIn('"qom-type":"acpi-egm-memory"', text)
        self.assertIn('{"qom-type":"iommufd","id":"iommufd0"}', text)

    def test_saved(self):
        """What would need the GPU's state is refused; the domain goes on, no file is left."""
        self.virsh(f'define {self.file(domain("one", 0))}')
        self.virsh('start --paused one')
        for command in ('save one /tmp/saved', 'managedsave one', 'dump one /tmp/saved',
                        'snapshot-create-as one now --memspec /tmp/saved',
                        'migrate one qemu+unix:///system --live'):
            with self.subTest(command=command):
                status, text = self.answer(command)
                self.assertNotEqual(status, 0, text)
                self.assertIn('VFIO migration is not supported', text)
                self.assertIn('paused', self.virsh('domstate one'))
                self.host.check('[ ! -e /tmp/saved ] && [ ! -e /var/lib/libvirt/qemu/save/one ]')
        self.virsh('resume one')

    def test_session(self):
        """A user's own daemon has no privileges; GPU and region are given to the user."""
        self.enterContext(self.host.pfnmap())
        nodes = '/dev/egm4 /dev/iommu /dev/vfio/devices/*'
        self.host.check(f'chown 1000 {nodes}; mkdir -p /tmp/home; chown 1000 /tmp/home')
        self.addCleanup(self.host.check, f'chown 0 {nodes}; rm -r /tmp/home')

        def run(line):
            line = f'export HOME=/tmp/home XDG_RUNTIME_DIR=/tmp/home; {line}'
            return self.host.run(f'(ulimit -l unlimited; su operator -c {shlex.quote(line)}) 2>&1')
        # There is no virtlogd.
        status, text = run("mkdir -p /tmp/home/.config/libvirt && echo 'stdio_handler = \"file\"' "
                           '> /tmp/home/.config/libvirt/qemu.conf && '
                           'LIBVIRT_LOG_OUTPUTS=3:file:/tmp/home/log virtqemud -d')
        self.assertEqual(status, 0, text)
        try:
            status, text = run('virsh -q -c qemu:///session create --paused ' +
                               self.file(domain('one', 0, iommufd='yes', managed='no')))
            self.assertEqual(status, 0, text)
            status, text = run('virsh -q -c qemu:///session dumpxml one')
            self.assertIn('/dev/egm4', text)
            self.assertIn('is counted for all processes of the user',
                          self.host.check('cat /tmp/home/log'))
            status, text = run('virsh -q -c qemu:///session destroy one')
            self.assertEqual(status, 0, text)
        finally:
            run('pid=$(cat /tmp/home/libvirt/virtqemud.pid); kill $pid; '
                'while [ -e /proc/$pid ]; do sleep 0.1; done')

    def test_manual(self):
        """The example of the manual is valid; what fits this host starts."""
        info = json.loads((TOP / 'work/build-libvirt/meson-info/meson-info.json').read_text())
        text = (pathlib.Path(info['directories']['source'])
                / 'docs/kbase/memorydevices.rst').read_text()
        xml, = re.findall(r'^ +<domain type=\'kvm\'>\n +<name>grace<.*?</domain>$',
                          text, re.M | re.S)
        # In place of the firmware that the domain leaves to libvirt
        self.host.check(f'mkdir -p {FIRMWARE}; printf %s {shlex.quote(DESCRIPTOR)} '
                        f'> {FIRMWARE}/uefi.json')
        self.virsh(f'define --validate {self.file(xml)}')
        self.assertIn('acpi-egm-memory', self.virsh(
            'domxml-to-native qemu-argv --domain grace'))
        self.enterContext(self.host.pfnmap())
        for old, new in (("unit='GiB'", "unit='MiB'"), ('447', '128'), ('894', '256'),
                         ('144', '2'), ('0-71', '0'), ('72-143', '1')):
            self.assertIn(old, xml)
            xml = xml.replace(old, new)
        for old, number in (('0009', 0), ('0019', 2)):
            bus = PLATFORM.gpus[number].split(':')[1]
            xml, count = re.subn(f"domain='0x{old}' bus='0x01'",
                                 f"domain='0x0000' bus='0x{bus}'", xml)
            self.assertEqual(count, 1)
        self.virsh('undefine grace --nvram')
        self.virsh(f'create --validate --paused {self.file(xml)}')
        self.assertEqual({gpu: (egm['node'], egm['region']['name'])
                          for gpu, egm in self.queried('grace').items()},
                         {'ua-gpu0': (0, 'egm4'), 'ua-gpu1': (1, 'egm5')})

    def test_kubevirt(self):
        """The form that KubeVirt writes for Grace: shares of the cell for each GPU,
        iommufd, initiators, a NIC with a node, SMMUv3s. QEMU has no VFIO device behind an
        SMMUv3 that is not nested in the host's, which an emulated one cannot do: one is
        left, if QEMU has it, on a host bridge without devices."""
        self.load(gpus='{0}+{1},{2}+{3}'.format(*PLATFORM.gpus))
        self.enterContext(self.host.pfnmap())
        xml = (TOP / 'libvirt/tests/qemuxmlconfdata/memory-egm-kubevirt.xml').read_text()
        # A client that passes descriptors is not here. The firmware is that of this host.
        for old, new in (("type='qemu'", "type='kvm'"), (" fdgroup='iommu'", ''),
                         ('<cpu>', "<cpu mode='host-passthrough'>"),
                         ("readonly='yes'", "readonly='yes' stateless='yes'"),
                         ('    <nvram.*/nvram>\n', ''), ("'2097152'", "'131072'"),
                         ('>4194304<', '>262144<'), ('>1048576<', '>65536<'),
                         ('(?s)    <hostdev(?:(?!hostdev).)*nic1.*?</hostdev>\n', '')):
            xml, count = re.subn(old, new, xml)
            self.assertTrue(count, old)
        _, text = self.host.run('/bin/qemu-system-aarch64 -device arm-smmuv3,help')
        has_smmu = 'smmu_per_bus' in text
        xml, count = re.subn('(?s)<iommu model.*</iommu>', "<iommu model='smmuv3'>"
                             "<driver pciBus='11'/></iommu>" if has_smmu else '', xml)
        self.assertEqual(count, 1)
        for old, new in zip(('0009:01', '0019:01', '0029:01', '0039:01', '0002:03'),
                            (*PLATFORM.gpus, PLATFORM.nic)):
            old, new = (address.split(':') for address in (old, new[:7]))
            xml, count = re.subn(f"domain='0x{old[0]}' bus='0x{old[1]}'",
                                 f"domain='0x{new[0]}' bus='0x{new[1]}'", xml)
            self.assertEqual(count, 1)
        self.bind(PLATFORM.nic)
        self.addCleanup(self.answer, 'destroy default_grace')
        self.virsh(f'create --validate --paused {self.file(xml)}')
        queried = self.queried('default_grace')
        self.assertEqual([(egm['node'], egm['size'], egm['region']['name'])
                          for _, egm in sorted(queried.items())],
                         2 * [(0, 128 * MIB, 'egm4')] + 2 * [(1, 128 * MIB, 'egm5')])
        kinds = [o['type'] for o in self.ask('default_grace', 'qom-list', path='/objects')]
        self.assertEqual(kinds.count('child<acpi-generic-initiator>'), 4 * 8 + 1)
        kinds = [o['type'] for o in self.ask('default_grace', 'qom-list',
                                             path='/machine/peripheral')]
        self.assertEqual(kinds.count('child<arm-smmuv3>'), has_smmu)

    def bind(self, address):
        """Give a device to vfio-pci, until the end of the test."""
        device = f'/sys/bus/pci/devices/{address}'
        self.host.check(f'echo vfio-pci > {device}/driver_override; '
                        f'echo {address} > /sys/bus/pci/drivers_probe')
        self.addCleanup(self.host.check, f'echo {address} > {device}/driver/unbind; '
                        f'echo > {device}/driver_override')

    def test_egm_vm(self):
        """What egm-vm writes for this host: all GPUs, with nodes for their memory."""
        self.enterContext(self.host.pfnmap())
        self.host.check('/egm-vm libvirt --name egm --net none --memory 128M '
                        f'--qemu /bin/qemu-system-aarch64 --firmware {UEFI} '
                        '> /tmp/domain.xml; grep -q iommufd /tmp/domain.xml')
        self.virsh('create --validate --paused /tmp/domain.xml')
        queried = self.queried('egm')
        self.assertEqual([egm['node'] for _, egm in sorted(queried.items())], [0, 0, 1])
        kinds = [o['type'] for o in self.ask('egm', 'qom-list', path='/objects')]
        self.assertEqual(kinds.count('child<acpi-generic-initiator>'), 3 * 8)
        self.assertEqual(kinds.count('child<iommufd>'), 1)
