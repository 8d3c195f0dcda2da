// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A stand-in for the driver of NVIDIA Grace's Extended GPU Memory (EGM), for
 * machines without it: RAM that was reserved at boot becomes /dev/egmX.
 * README.md beside this file describes the parameters.
 */

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define MAX_REGIONS	8
#define MAX_GPUS	32

/* The ioctl of the real driver. */
#define EGM_RETIRED_PAGES_LIST	_IO('E', 100)

struct egm_retired_page {
	__u64 offset;
	__u64 size;
};

struct egm_retired_list {
	__u32 argsz;
	__u32 count;
	struct egm_retired_page pages[];
};

static unsigned long long base[MAX_REGIONS], size[MAX_REGIONS];
static int pxm[MAX_REGIONS];
static char *gpus[MAX_REGIONS], *retired[MAX_REGIONS];
static unsigned int num_regions, num_sizes, num_pxms;

module_param_array(base, ullong, &num_regions, 0444);
MODULE_PARM_DESC(base, "physical address of each region; required");
module_param_array(size, ullong, &num_sizes, 0444);
MODULE_PARM_DESC(size, "size of each region in bytes; required");
module_param_array(pxm, int, &num_pxms, 0444);
MODULE_PARM_DESC(pxm, "proximity domain of each region: X of /dev/egmX; required");
module_param_array(gpus, charp, NULL, 0444);
MODULE_PARM_DESC(gpus, "PCI addresses of the GPUs of each region, with + between them");
module_param_array(retired, charp, NULL, 0644);
MODULE_PARM_DESC(retired, "offset:size, or offset:size*count:stride, of the retired pages of each region, with + between them");

static char *gpu_abi = "links", *llseek = "none";
static bool egm_size = true, retired_ioctl = true, pinnable = true, zero = true;

module_param(gpu_abi, charp, 0444);
MODULE_PARM_DESC(gpu_abi, "how GPUs are told: links (default), file (gpu_devices) or none");
module_param(llseek, charp, 0444);
MODULE_PARM_DESC(llseek, "what lseek() does: none (ESPIPE, default), noop (answers 0) or size");
module_param(egm_size, bool, 0444);
MODULE_PARM_DESC(egm_size, "whether there is an attribute egm_size");
module_param(retired_ioctl, bool, 0444);
MODULE_PARM_DESC(retired_ioctl, "whether there is an ioctl EGM_RETIRED_PAGES_LIST");
module_param(pinnable, bool, 0444);
MODULE_PARM_DESC(pinnable, "whether the IOMMU can map a mapping (n: EFAULT, as with iommufd)");
module_param(zero, bool, 0644);
MODULE_PARM_DESC(zero, "whether the first open zeroes the region (n: its content can be set up by a test)");

struct egm_region {
	struct device dev;
	struct cdev cdev;
	struct mutex lock;
	unsigned int index;	/* into the parameters */
	unsigned int users;
	struct pci_dev *links[MAX_GPUS];
};

static struct egm_region *regions[MAX_REGIONS];
static dev_t first_dev;
static const struct class egm_class = { .name = "egm" };

static struct egm_region *to_region(struct device *dev)
{
	return container_of(dev, struct egm_region, dev);
}

/* Attributes */

static ssize_t egm_size_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "0x%llx\n", size[to_region(dev)->index]);
}
static DEVICE_ATTR_RO(egm_size);

static ssize_t gpu_devices_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	const char *list = gpus[to_region(dev)->index] ?: "";
	ssize_t len = sysfs_emit(buf, "%s%s", list, *list ? "\n" : "");

	strreplace(buf, '+', '\n');
	return len;
}
static DEVICE_ATTR_RO(gpu_devices);

static umode_t egm_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	if (attr == &dev_attr_egm_size.attr)
		return egm_size ? attr->mode : 0;
	return strcmp(gpu_abi, "file") ? 0 : attr->mode;
}

static struct attribute *egm_attrs[] = {
	&dev_attr_egm_size.attr,
	&dev_attr_gpu_devices.attr,
	NULL
};

static const struct attribute_group egm_group = {
	.attrs = egm_attrs,
	.is_visible = egm_visible,
};

static const struct attribute_group *egm_groups[] = { &egm_group, NULL };

/* The device */

static int egm_open(struct inode *inode, struct file *file)
{
	struct egm_region *region =
		container_of(inode->i_cdev, struct egm_region, cdev);
	int ret = 0;

	mutex_lock(&region->lock);
	if (!region->users && zero) {
		void *mem = memremap(base[region->index], size[region->index],
				     MEMREMAP_WB);

		if (mem) {
			memset(mem, 0, size[region->index]);
			memunmap(mem);
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret)
		region->users++;
	mutex_unlock(&region->lock);
	file->private_data = region;
	return ret;
}

static int egm_release(struct inode *inode, struct file *file)
{
	struct egm_region *region = file->private_data;

	mutex_lock(&region->lock);
	region->users--;
	mutex_unlock(&region->lock);
	return 0;
}

static vm_fault_t egm_no_page(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct egm_unpinnable_ops = {
	.fault = egm_no_page,
};

static int egm_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct egm_region *region = file->private_data;
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	u64 length = vma->vm_end - vma->vm_start;

	if (length > size[region->index] ||
	    offset > size[region->index] - length)
		return -EINVAL;
	if (!pinnable) {
		vma->vm_ops = &egm_unpinnable_ops;
		return 0;
	}
	return remap_pfn_range(vma, vma->vm_start,
			       (base[region->index] + offset) >> PAGE_SHIFT,
			       length, vma->vm_page_prot);
}

static loff_t egm_llseek(struct file *file, loff_t offset, int whence)
{
	struct egm_region *region = file->private_data;

	if (!strcmp(llseek, "noop"))
		return noop_llseek(file, offset, whence);
	if (!strcmp(llseek, "size"))
		return fixed_size_llseek(file, offset, whence,
					 size[region->index]);
	return -ESPIPE;
}

/*
 * Entry @n of "offset:size+offset:size*count:stride"; false after the last one
 */
static bool egm_retired_entry(const char *text, unsigned int n,
			      struct egm_retired_page *page)
{
	while (text) {
		unsigned int count = 1;
		u64 stride = 0;
		int fields = sscanf(text, "%lli:%lli*%u:%lli", &page->offset,
				    &page->size, &count, &stride);

		if (fields != 2 && fields != 4)
			return false;
		if (n < count) {
			page->offset += n * stride;
			return true;
		}
		n -= count;
		text = strchr(text, '+');
		text = text ? text + 1 : NULL;
	}
	return false;
}

/* Read at each call: the parameter can be changed while a VM runs. */
static long egm_retired_list(struct egm_region *region,
			     struct egm_retired_list __user *list)
{
	const char *text;
	struct egm_retired_page page;
	struct egm_retired_list head;
	u32 argsz, count = 0;
	long ret = 0;

	if (copy_from_user(&head, list, sizeof(head)))
		return -EFAULT;
	if (head.argsz < sizeof(head))
		return -EINVAL;

	kernel_param_lock(THIS_MODULE);
	text = retired[region->index];
	while (egm_retired_entry(text, count, &page))
		count++;
	argsz = struct_size(list, pages, count);
	if (head.argsz < argsz) {
		count = 0;
	} else {
		for (u32 i = 0; i < count && !ret; i++) {
			egm_retired_entry(text, i, &page);
			if (copy_to_user(&list->pages[i], &page, sizeof(page)))
				ret = -EFAULT;
		}
	}
	kernel_param_unlock(THIS_MODULE);

	head.argsz = argsz;
	head.count = count;
	if (!ret && copy_to_user(list, &head, sizeof(head)))
		ret = -EFAULT;
	return ret;
}

static long egm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != EGM_RETIRED_PAGES_LIST || !retired_ioctl)
		return -ENOTTY;
	return egm_retired_list(file->private_data, (void __user *)arg);
}

static const struct file_operations egm_fops = {
	.owner = THIS_MODULE,
	.open = egm_open,
	.release = egm_release,
	.mmap = egm_mmap,
	.llseek = egm_llseek,
	.unlocked_ioctl = egm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Regions */

static int egm_link_gpus(struct egm_region *region)
{
	const char *text = gpus[region->index];
	unsigned int n = 0, domain, bus, slot, func;

	if (!text || !*text || strcmp(gpu_abi, "links"))
		return 0;
	while (text && n < MAX_GPUS) {
		struct pci_dev *pdev;
		int ret;

		if (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &func) != 4)
			return -EINVAL;
		pdev = pci_get_domain_bus_and_slot(domain, bus,
						   PCI_DEVFN(slot, func));
		if (!pdev)
			return -ENODEV;
		ret = sysfs_create_link(&region->dev.kobj, &pdev->dev.kobj,
					pci_name(pdev));
		if (ret) {
			pci_dev_put(pdev);
			return ret;
		}
		region->links[n++] = pdev;
		text = strchr(text, '+');
		text = text ? text + 1 : NULL;
	}
	return 0;
}

static void egm_dev_release(struct device *dev)
{
	kfree(to_region(dev));
}

static void egm_remove(unsigned int i)
{
	struct egm_region *region = regions[i];

	for (unsigned int n = 0; n < MAX_GPUS && region->links[n]; n++) {
		sysfs_remove_link(&region->dev.kobj,
				  pci_name(region->links[n]));
		pci_dev_put(region->links[n]);
	}
	cdev_device_del(&region->cdev, &region->dev);
	put_device(&region->dev);
	regions[i] = NULL;
}

static int egm_add(unsigned int i)
{
	struct egm_region *region;
	int ret;

	/* Never hand out memory that the kernel uses. */
	if (!size[i] || !PAGE_ALIGNED(base[i] | size[i]) ||
	    region_intersects(base[i], size[i], IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT) {
		pr_err("egm_standin: 0x%llx-0x%llx is not reserved memory\n",
		       base[i], base[i] + size[i] - 1);
		return -EINVAL;
	}

	region = kzalloc(sizeof(*region), GFP_KERNEL);
	if (!region)
		return -ENOMEM;
	mutex_init(&region->lock);
	region->index = i;
	device_initialize(&region->dev);
	region->dev.class = &egm_class;
	region->dev.devt = first_dev + i;
	region->dev.groups = egm_groups;
	region->dev.release = egm_dev_release;
	ret = dev_set_name(&region->dev, "egm%d", pxm[i]);
	cdev_init(&region->cdev, &egm_fops);
	region->cdev.owner = THIS_MODULE;
	if (!ret)
		ret = cdev_device_add(&region->cdev, &region->dev);
	if (ret) {
		put_device(&region->dev);
		return ret;
	}
	regions[i] = region;
	return egm_link_gpus(region);
}

static void egm_standin_exit(void)
{
	for (unsigned int i = 0; i < MAX_REGIONS; i++) {
		if (regions[i])
			egm_remove(i);
	}
	class_unregister(&egm_class);
	unregister_chrdev_region(first_dev, MAX_REGIONS);
}

static int __init egm_standin_init(void)
{
	int ret;

	if (!num_regions || num_sizes != num_regions || num_pxms != num_regions)
		return -EINVAL;
	ret = alloc_chrdev_region(&first_dev, 0, MAX_REGIONS, "egm");
	if (ret)
		return ret;
	ret = class_register(&egm_class);
	if (ret) {
		unregister_chrdev_region(first_dev, MAX_REGIONS);
		return ret;
	}
	for (unsigned int i = 0; i < num_regions && !ret; i++)
		ret = egm_add(i);
	if (ret)
		egm_standin_exit();
	return ret;
}

module_init(egm_standin_init);
module_exit(egm_standin_exit);
MODULE_DESCRIPTION("Stand-in for NVIDIA Grace's Extended GPU Memory");
MODULE_LICENSE("GPL");
