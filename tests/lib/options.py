# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's options for machines with EGM. Only gpuN have EGM."""


def ram(directory, sizes, empty=0):
    """NUMA nodes with a CPU and a file each, then nodes without memory.

    sizes: in MiB; 0: a node with a CPU only
    """
    args = ['-m', f'{sum(sizes)}M', '-smp', f'{len(sizes)},sockets={len(sizes)}']
    for n, size in enumerate(sizes):
        if size:
            args += ['-object', f'memory-backend-file,id=m{n},size={size}M,share=on,'
                     f'mem-path={directory}/m{n}']
        args += ['-numa', f'node,nodeid={n},cpus={n}' + (f',memdev=m{n}' if size else '')]
    for n in range(empty):
        args += ['-numa', f'node,nodeid={len(sizes) + n}']
    return args


def devices(*texts):
    """-device for each; a gpu is a device that QEMU emulates."""
    return [x for text in texts for x in ('-device', text)]


def port(name, bus, where='0'):
    """A root port; chassis numbers must differ.

    Without I/O space: with pages larger than 4 KiB Linux does not survive the
    small windows of several host bridges.
    """
    number = sum(map(ord, name + bus)) % 250 + 1
    return (f'pcie-root-port,id={name},bus={bus},addr={where},chassis={number},'
            'io-reserve=0')


def switch(name, bus, *ports):
    """A switch below a root port, or below a port of another switch.

    ports: (id, device number) of its downstream ports
    """
    return (f'x3130-upstream,id={name},bus={bus}',
            *(f'xio3130-downstream,id={port_},bus={name},addr={where},'
              f'chassis={sum(map(ord, name)) % 250 + 1},slot={where}'
              for port_, where in ports))


def pxb(name, number, node=None):
    """A host bridge of its own, at bus NUMBER."""
    numa = '' if node is None else f',numa_node={node}'
    return f'pxb-pcie,id={name},bus=pcie.0,bus_nr={number}{numa}'


def gpu(number, bus, where='0'):
    """A stand-in for a GPU: an endpoint without I/O space."""
    return f'edu,id=gpu{number},bus={bus},addr={where}'


def nic(bus, where='0'):
    """A neighbour that must not get properties."""
    return f'virtio-net-pci,id=nic,bus={bus},addr={where},romfile='


def edu(bus, where='0'):
    """Another kind of neighbour."""
    return f'edu,bus={bus},addr={where}'


def egm(*nodes):
    """An object for gpu0, gpu1, ... with its node."""
    return [x for n, node in enumerate(nodes) for x in
            ('-object', f'acpi-egm-memory,id=egm{n},pci-dev=gpu{n},node={node}')]


def initiators(number, nodes):
    """Nodes for a GPU's own memory."""
    return [x for node in nodes for x in
            ('-object', f'acpi-generic-initiator,id=gi{node},'
             f'pci-dev=gpu{number},node={node}')]


def distances(count):
    """Made-up distances from each of COUNT nodes to all of them."""
    def one(a, b):
        return 10 if a == b else 11 + (a * b + a + b) % 240

    return {a: [one(a, b) for b in range(count)] for a in range(count)}


def distance(distances_):
    """-numa dist for these distances, which are the same in both directions."""
    return [x for a, row in distances_.items() for b in range(a + 1, len(row))
            for x in ('-numa', f'dist,src={a},dst={b},val={row[b]}')]
