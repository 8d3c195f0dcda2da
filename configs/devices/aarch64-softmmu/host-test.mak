# What QEMU in the arm64 host of the tests needs: machine virt, and the devices of
# its command lines there. What virt has to have, it brings itself.

CONFIG_ARM_VIRT=y
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y
CONFIG_GENERIC_LOADER=y
CONFIG_IOMMUFD=y
CONFIG_PCIE_PORT=y
CONFIG_PXB=y
CONFIG_VFIO_PCI=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_PCI=y
