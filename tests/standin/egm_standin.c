// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A stand-in for the driver of NVIDIA Grace's Extended GPU Memory (EGM), for
 * machines without it: RAM that was reserved at boot becomes /dev/egmX.
 * README.md in this directory describes the parameters, and the version of the
 * driver in which each behaviour was found.
 */

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/property.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/uaccess.h>
#include <linux/version.h>

/* The first version in which drivers can map blocks and learn of memory errors */
#define NEW_KERNEL	(LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0))
#if NEW_KERNEL
#include <linux/memory-failure.h>
#endif

#define MAX_REGIONS	8
#define MAX_GPUS	32
#define MAX_PXM		256
#define WINDOW		4	/* of E: number of domains, counted from the lowest */
#define MAX_BLOCKS	4096	/* in the firmware's table */
#define BLOCK		SZ_64K	/* the unit in which firmware retires memory */
#define MAX_FAILED	64

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

/* Differences between the generations of the driver. */
static const struct generation {
	char name;
	bool reports;	/* attributes and the ioctl exist */
	bool links;	/* GPUs are links, not a file */
	bool checks;	/* mmap() looks at offset and length */
	bool once;	/* mmap() works once until the last close, and must be used */
	bool shared;	/* every descriptor works, at once */
	bool crashes;	/* mmap() of a second descriptor, instead of EINVAL */
	bool exclusive;	/* there is no second descriptor: EBUSY */
	bool whole;	/* retired: all pages of a block, not the first one */
	bool sorted;	/* ascending, and only those in the region */
	bool registers;	/* pages for memory failure, and reports those that failed */
	bool binds;	/* a region exists while vfio has one of its GPUs */
	bool needs_list; /* ignores a _DSD without the address of that list */
} generations[] = {
	{ 'A', .binds = true },
	{ 'B', .reports = true, .once = true, .registers = true, .binds = true },
	{ 'C', .reports = true, .links = true, .checks = true, .crashes = true,
	  .registers = true, .binds = true, .needs_list = true },
	{ 'M', .reports = true, .links = true, .checks = true, .shared = true,
	  .whole = true, .registers = true, .needs_list = true },
	{ 'E', .reports = true, .links = true, .checks = true, .exclusive = true,
	  .whole = true, .sorted = true },
};

static const struct generation *gen;

static char *driver = "E";
static unsigned long long base[MAX_REGIONS], size[MAX_REGIONS];
static int pxm[MAX_REGIONS];
static char *gpus[MAX_REGIONS], *retired[MAX_REGIONS], *poisoned[MAX_REGIONS];
static unsigned int num_regions, num_sizes, num_pxms;
static bool from_firmware;	/* the regions come from _DSD */

module_param(driver, charp, 0444);
MODULE_PARM_DESC(driver, "generation of the driver: A, B, C, M or E (default)");
module_param_array(base, ullong, &num_regions, 0444);
MODULE_PARM_DESC(base, "physical address of each region (default: what _DSD of PCI devices say)");
module_param_array(size, ullong, &num_sizes, 0444);
MODULE_PARM_DESC(size, "size of each region in bytes; with base");
module_param_array(pxm, int, &num_pxms, 0444);
MODULE_PARM_DESC(pxm, "proximity domain of each region: X of /dev/egmX; with base");
module_param_array(gpus, charp, NULL, 0444);
MODULE_PARM_DESC(gpus, "PCI addresses of the GPUs of each region, with + between them");
module_param_array(retired, charp, NULL, 0444);
MODULE_PARM_DESC(retired, "offsets of the 64 KiB blocks that firmware has retired in each region, with + between them; offset*count:stride for many");
module_param_array(poisoned, charp, NULL, 0644);
MODULE_PARM_DESC(poisoned, "offsets of pages with errors at run time, in the same form (B, C, M)");

#if NEW_KERNEL
static bool huge;

module_param(huge, bool, 0444);
MODULE_PARM_DESC(huge, "map blocks of the page tables' next level on access, instead of all pages at once; no driver does");
#endif

struct egm_region {
	struct device dev;
	struct cdev cdev;
	struct mutex lock;	/* protects the GPUs; with E also users and the zeroing */
	atomic_t users;
	bool mapped;
	unsigned int index;	/* into the parameters */
	struct pci_dev *gpus[MAX_GPUS];	/* the last one is NULL */
#if NEW_KERNEL
	struct pfn_address_space space;
	unsigned int num_failed;
	u64 failed[MAX_FAILED];	/* offsets of pages with an error, as they came */
	unsigned long fatal;	/* page frame that fails when it is accessed, or 0 */
#endif
};

static DEFINE_MUTEX(regions_lock);	/* protects regions[] */
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
	struct egm_region *region = to_region(dev);
	int len = 0;

	guard(mutex)(&region->lock);
	for (struct pci_dev **gpu = region->gpus; *gpu; gpu++)
		len += sysfs_emit_at(buf, len, "%s\n", pci_name(*gpu));
	return len;
}
static DEVICE_ATTR_RO(gpu_devices);

static umode_t egm_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	if (!gen->reports || (attr == &dev_attr_gpu_devices.attr && gen->links))
		return 0;
	return attr->mode;
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

static int egm_zero(struct egm_region *region, bool killable)
{
	u64 start = base[region->index], end = start + size[region->index];

	for (u64 next; start < end; start = next) {
		void *mem;

		if (killable && fatal_signal_pending(current))
			return -EINTR;
		next = min(end, start + SZ_1G);
		mem = memremap(start, next - start, MEMREMAP_WB);
		if (!mem)
			return gen->checks ? -ENOMEM : -EINVAL;
		memset(mem, 0, next - start);
		memunmap(mem);
		cond_resched();
	}
	return 0;
}

#if NEW_KERNEL

/* The page frame of the region that is at a page of its file */
static unsigned long egm_frame(struct vm_area_struct *vma, pgoff_t pgoff)
{
	struct egm_region *region = vma->vm_file->private_data;

	return PHYS_PFN(base[region->index]) + pgoff -
	       (gen->checks ? 0 : vma->vm_pgoff);
}

/* A page of the region has failed; where is it in @vma? Must not sleep. */
static int egm_failed(struct vm_area_struct *vma, unsigned long pfn,
		      pgoff_t *pgoff)
{
	struct egm_region *region = vma->vm_file->private_data;
	unsigned int n;

	if (!region || pfn < egm_frame(vma, vma->vm_pgoff) ||
	    pfn >= egm_frame(vma, vma->vm_pgoff) + vma_pages(vma))
		return -EFAULT;
	*pgoff = vma->vm_pgoff + pfn - egm_frame(vma, vma->vm_pgoff);
	n = region->num_failed;
	if (n < MAX_FAILED) {
		region->failed[n] = PFN_PHYS(pfn) - base[region->index];
		smp_store_release(&region->num_failed, n + 1);
	}
	return 0;
}

static int egm_register(struct egm_region *region, struct inode *inode)
{
	unsigned long first = PHYS_PFN(base[region->index]);

	if (!gen->registers)
		return 0;
	region->space = (struct pfn_address_space) {
		.node.start = first,
		.node.last = first + PHYS_PFN(size[region->index]) - 1,
		.mapping = inode->i_mapping,
		.pfn_to_vma_pgoff = egm_failed,
	};
	return register_pfn_address_space(&region->space);
}

static void egm_unregister(struct egm_region *region)
{
	if (gen->registers)
		unregister_pfn_address_space(&region->space);
	region->space.mapping = NULL;
}

/*
 * In place of the CPU: a page is bad from now on. The next access to it calls
 * egm_fault(), in the thread that would get the abort.
 */
static int egm_set_fatal(const char *text, const struct kernel_param *param)
{
	u64 address;
	int ret = kstrtou64(text, 0, &address);

	guard(mutex)(&regions_lock);
	for (unsigned int i = 0; i < num_regions && !ret; i++) {
		struct egm_region *region = regions[i];

		if (!region || !region->space.mapping || address < base[i] ||
		    address - base[i] >= size[i])
			continue;
		WRITE_ONCE(region->fatal, PHYS_PFN(address));
		unmap_mapping_range(region->space.mapping, address - base[i],
				    PAGE_SIZE, 1);
		return 0;
	}
	return ret ?: -ENXIO;
}

static const struct kernel_param_ops egm_fatal_ops = { .set = egm_set_fatal };
module_param_cb(fatal, &egm_fatal_ops, NULL, 0200);
MODULE_PARM_DESC(fatal, "physical address of a page whose next access fails, in a region that is open (B, C, M)");

#else

static int egm_register(struct egm_region *region, struct inode *inode)
{
	return 0;
}

static void egm_unregister(struct egm_region *region)
{
}

#endif

static int egm_open_exclusive(struct egm_region *region, struct file *file)
{
	int ret;

	file->private_data = region;
	if (mutex_lock_killable(&region->lock))
		return -EINTR;
	ret = atomic_read(&region->users) ? -EBUSY : egm_zero(region, true);
	if (!ret)
		atomic_set(&region->users, 1);
	mutex_unlock(&region->lock);
	return ret;
}

static int egm_open(struct inode *inode, struct file *file)
{
	struct egm_region *region =
		container_of(inode->i_cdev, struct egm_region, cdev);
	int ret;

	if (gen->exclusive)
		return egm_open_exclusive(region, file);
	/* Otherwise a second descriptor does not work: its private_data stays NULL. */
	if (gen->shared)
		file->private_data = region;
	if (atomic_inc_return(&region->users) > 1)
		return 0;
	ret = egm_zero(region, false) ?: egm_register(region, inode);
	if (ret)
		atomic_dec(&region->users);
	else
		file->private_data = region;
	return ret;
}

static int egm_release(struct inode *inode, struct file *file)
{
	struct egm_region *region =
		container_of(inode->i_cdev, struct egm_region, cdev);

	guard(mutex)(&region->lock);
	if (atomic_dec_and_test(&region->users)) {
		WARN(gen->once && !region->mapped,
		     "%s was opened, but never mapped: the driver's tree of ranges breaks",
		     dev_name(&region->dev));
		region->mapped = false;
		egm_unregister(region);
	}
	return 0;
}

#if NEW_KERNEL

static vm_fault_t egm_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	unsigned long address = ALIGN_DOWN(vmf->address, PAGE_SIZE << order);
	struct vm_area_struct *vma = vmf->vma;
	unsigned long pfn = egm_frame(vma, linear_page_index(vma, address));
	struct egm_region *region = vma->vm_file->private_data;
	bool fits = address >= vma->vm_start && IS_ALIGNED(pfn, 1 << order) &&
		    address + (PAGE_SIZE << order) <= vma->vm_end;

	if (!order && cmpxchg(&region->fatal, pfn, 0) == pfn)
		memory_failure(pfn, MF_ACTION_REQUIRED);
	if (!order)
		return vmf_insert_pfn(vma, address, pfn);
	/* arm64 has no larger ones for such memory. */
	if (!IS_ENABLED(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP) || !huge || !fits ||
	    order != PMD_ORDER || READ_ONCE(region->fatal))
		return VM_FAULT_FALLBACK;
	return vmf_insert_pfn_pmd(vmf, pfn, vmf->flags & FAULT_FLAG_WRITE);
}

static vm_fault_t egm_fault(struct vm_fault *vmf)
{
	return egm_huge_fault(vmf, 0);
}

static const struct vm_operations_struct egm_vm_ops = {
	.fault = egm_fault,
	.huge_fault = egm_huge_fault,
};

#endif

static int egm_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct egm_region *region = file->private_data;
	u64 length = vma->vm_end - vma->vm_start, start, offset;

	if (!region) {
		WARN(gen->crashes, "mmap() of a second descriptor: the driver crashes");
		return -EINVAL;
	}
	start = base[region->index];
	if (gen->checks) {
		offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
		if (gen->crashes)
			offset &= (1ULL << 40) - 1;
		if (check_add_overflow(start, offset, &start) ||
		    check_add_overflow(offset, length, &offset))
			return -EOVERFLOW;
		if (offset > size[region->index])
			return -EINVAL;
	} else if (WARN(region_intersects(start, length, IORESOURCE_SYSTEM_RAM,
					  IORES_DESC_NONE) != REGION_DISJOINT,
			"mmap() of %llu bytes: the driver maps the kernel's RAM",
			length)) {
		return -EINVAL;
	}
	if (gen->once && xchg(&region->mapped, true))
		return -EBUSY;
#if NEW_KERNEL
	vma->vm_ops = &egm_vm_ops;
	if (huge) {
		vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
		return 0;
	}
#endif
	return remap_pfn_range(vma, vma->vm_start, start >> PAGE_SHIFT, length,
			       vma->vm_page_prot);
}

/*
 * Write the offsets in "offset+offset*count:stride" to @pages, which has room
 * for @max; give their number.
 */
static unsigned int egm_parse(const char *text, u64 *pages, unsigned int max)
{
	unsigned int n = 0;

	while (text) {
		unsigned int count = 1;
		u64 offset, stride = 0;
		int fields = sscanf(text, "%lli*%u:%lli", &offset, &count, &stride);

		if (fields != 1 && fields != 3)
			break;
		for (; count && n < max; count--, offset += stride)
			pages[n++] = offset;
		text = strchr(text, '+');
		text = text ? text + 1 : NULL;
	}
	return n;
}

static int egm_compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	if (!gen->sorted && hash_long(x, 16) != hash_long(y, 16)) {
		x = hash_long(x, 16);
		y = hash_long(y, 16);
	}
	return x < y ? -1 : x > y;
}

/* The pages that the ioctl reports, in its order; free with kvfree(). */
static u64 *egm_retired_pages(struct egm_region *region, unsigned int *n)
{
	const unsigned int each = gen->whole ? BLOCK / PAGE_SIZE : 1;
	u64 *pages = kvmalloc_array(MAX_BLOCKS * (each + 1) + MAX_FAILED,
				    sizeof(*pages), GFP_KERNEL);
	u64 *blocks = pages + MAX_BLOCKS * each;
	unsigned int count;

	if (!pages)
		return NULL;
	kernel_param_lock(THIS_MODULE);
	count = egm_parse(retired[region->index], blocks, MAX_BLOCKS);
	*n = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (gen->sorted && blocks[i] >= size[region->index])
			continue;
		for (unsigned int k = 0; k < each; k++)
			pages[(*n)++] = blocks[i] + k * PAGE_SIZE;
	}
	if (!gen->sorted)
		*n += egm_parse(poisoned[region->index], pages + *n,
				MAX_BLOCKS * (each + 1) - *n);
	kernel_param_unlock(THIS_MODULE);
#if NEW_KERNEL
	count = smp_load_acquire(&region->num_failed);
	memcpy(pages + *n, region->failed, count * sizeof(*pages));
	*n += count;
#endif
	sort(pages, *n, sizeof(*pages), egm_compare, NULL);
	return pages;
}

static long egm_retired_list(struct egm_region *region,
			     struct egm_retired_list *head,
			     struct egm_retired_list __user *list)
{
	unsigned int count;
	u64 *pages = egm_retired_pages(region, &count);
	size_t argsz = struct_size(list, pages, count);
	long ret = 0;

	if (!pages)
		return -ENOMEM;
	if (head->argsz < argsz) {
		head->argsz = argsz;
		count = 0;
	}
	for (unsigned int i = 0; i < count && !ret; i++) {
		struct egm_retired_page page = { pages[i], PAGE_SIZE };

		if (copy_to_user(&list->pages[i], &page, sizeof(page)))
			ret = -EFAULT;
	}
	kvfree(pages);
	head->count = count;
	if (!ret && copy_to_user(list, head, sizeof(*head)))
		ret = -EFAULT;
	return ret;
}

static long egm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct egm_retired_list head;

	if (!gen->reports)
		return -ENOTTY;
	if (copy_from_user(&head, (void __user *)arg, sizeof(head)))
		return -EFAULT;
	if (head.argsz < sizeof(head) || !file->private_data ||
	    cmd != EGM_RETIRED_PAGES_LIST)
		return -EINVAL;
	return egm_retired_list(file->private_data, &head, (void __user *)arg);
}

static const struct file_operations egm_fops = {
	.owner = THIS_MODULE,
	.open = egm_open,
	.release = egm_release,
	.mmap = egm_mmap,
	.unlocked_ioctl = egm_ioctl,
};

/* Regions */

/* Read the _DSD of a PCI device; false: properties are missing. */
static bool egm_properties(struct pci_dev *pdev, u64 *start, u64 *length,
			   u64 *domain)
{
	u64 list;

	return !device_property_read_u64(&pdev->dev, "nvidia,egm-pxm", domain) &&
	       !device_property_read_u64(&pdev->dev, "nvidia,egm-size", length) &&
	       !device_property_read_u64(&pdev->dev, "nvidia,egm-base-pa", start) &&
	       (!gen->needs_list ||
		!device_property_read_u64(&pdev->dev,
					  "nvidia,egm-retired-pages-data-base",
					  &list));
}

/* One region for each domain; the first of its devices has its address. */
static int egm_find_regions(void)
{
	struct pci_dev *pdev = NULL;
	u64 start, length, domain;
	unsigned int i;

	for_each_pci_dev(pdev) {
		if (!egm_properties(pdev, &start, &length, &domain))
			continue;
		for (i = 0; i < num_regions && pxm[i] != domain; i++)
			;
		if (i < num_regions)
			continue;
		if (i == MAX_REGIONS || domain >= MAX_PXM) {
			pci_dev_put(pdev);
			return -EINVAL;
		}
		base[i] = start;
		size[i] = length;
		pxm[i] = domain;
		num_regions++;
	}
	return 0;
}

/* The device of an address in a list, with a reference; @text becomes the rest. */
static struct pci_dev *egm_next_gpu(const char **text)
{
	unsigned int domain, bus, slot, func;
	struct pci_dev *pdev;

	if (sscanf(*text, "%x:%x:%x.%x", &domain, &bus, &slot, &func) != 4)
		return ERR_PTR(-EINVAL);
	pdev = pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, func));
	*text = strchr(*text, '+');
	*text += *text ? 1 : 0;
	return pdev ?: ERR_PTR(-ENODEV);
}

/* Whether all addresses of a list belong to devices */
static int egm_check_gpus(const char *text)
{
	while (text && *text) {
		struct pci_dev *pdev = egm_next_gpu(&text);

		if (IS_ERR(pdev))
			return PTR_ERR(pdev);
		pci_dev_put(pdev);
	}
	return 0;
}

/* Whether a device belongs to region @i: by the domain in its _DSD, or by the list. */
static bool egm_is_gpu(unsigned int i, struct pci_dev *pdev)
{
	const char *text = gpus[i];
	u64 start, length, domain;

	if (from_firmware)
		return egm_properties(pdev, &start, &length, &domain) &&
		       domain == pxm[i];
	while (text && *text) {
		struct pci_dev *gpu = egm_next_gpu(&text);

		pci_dev_put(gpu);
		if (gpu == pdev)
			return true;
	}
	return false;
}

/* Whether the driver knows a device: some generations need it bound to vfio. */
static bool egm_knows(struct pci_dev *pdev)
{
	return !gen->binds ||
	       (pdev->dev.driver && strstr(pdev->dev.driver->name, "vfio"));
}

static void egm_find_gpus(struct egm_region *region)
{
	struct pci_dev *pdev = NULL;
	unsigned int n = 0;

	for_each_pci_dev(pdev) {
		if (n < MAX_GPUS - 1 && egm_is_gpu(region->index, pdev) &&
		    egm_knows(pdev))
			region->gpus[n++] = pci_dev_get(pdev);
	}
}

static void egm_dev_release(struct device *dev)
{
	struct egm_region *region = to_region(dev);

	for (struct pci_dev **gpu = region->gpus; *gpu; gpu++)
		pci_dev_put(*gpu);
	kfree(region);
}

static void egm_remove(unsigned int i)
{
	struct egm_region *region = regions[i];

	if (!region)
		return;
	for (struct pci_dev **gpu = region->gpus; gen->links && *gpu; gpu++)
		sysfs_remove_link(&region->dev.kobj, pci_name(*gpu));
	cdev_device_del(&region->cdev, &region->dev);
	put_device(&region->dev);
	regions[i] = NULL;
}

/* Never hand out memory that the kernel uses. */
static int egm_check_region(unsigned int i)
{
	if (!size[i] || !PAGE_ALIGNED(base[i] | size[i]) ||
	    region_intersects(base[i], size[i], IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT) {
		pr_err("egm_standin: 0x%llx-0x%llx is not reserved memory\n",
		       base[i], base[i] + size[i] - 1);
		return -EINVAL;
	}
	if (pxm[i] < 0 || pxm[i] >= MAX_PXM)
		return -EINVAL;
	return egm_check_gpus(gpus[i]);
}

/* Make the device of region @i, if the driver knows a GPU or needs none. */
static int egm_add(unsigned int i)
{
	struct egm_region *region = kzalloc(sizeof(*region), GFP_KERNEL);
	int ret;

	if (!region)
		return -ENOMEM;
	mutex_init(&region->lock);
	region->index = i;
	device_initialize(&region->dev);
	region->dev.class = &egm_class;
	region->dev.devt = MKDEV(MAJOR(first_dev), pxm[i]);
	region->dev.groups = egm_groups;
	region->dev.release = egm_dev_release;
	cdev_init(&region->cdev, &egm_fops);
	region->cdev.owner = THIS_MODULE;
	egm_find_gpus(region);
	if (gen->binds && !region->gpus[0]) {
		put_device(&region->dev);
		return 0;
	}
	if (gen->crashes && region->gpus[0])
		region->dev.parent = &region->gpus[0]->dev;
	ret = dev_set_name(&region->dev, "egm%d", pxm[i]) ?:
	      cdev_device_add(&region->cdev, &region->dev);
	if (ret) {
		put_device(&region->dev);
		return ret;
	}
	regions[i] = region;
	for (struct pci_dev **gpu = region->gpus; gen->links && *gpu && !ret; gpu++)
		ret = sysfs_create_link(&region->dev.kobj, &(*gpu)->dev.kobj,
					pci_name(*gpu));
	return ret;
}

/* A GPU of region @i got its vfio driver: the first one makes the region. */
static int egm_bound(unsigned int i, struct pci_dev *pdev)
{
	struct egm_region *region = regions[i];
	struct pci_dev **gpu;

	if (!region)
		return egm_add(i);
	for (gpu = region->gpus; *gpu && *gpu != pdev; gpu++)
		;
	if (*gpu || gpu == region->gpus + MAX_GPUS - 1)
		return 0;
	scoped_guard(mutex, &region->lock)
		*gpu = pci_dev_get(pdev);
	return gen->links ? sysfs_create_link(&region->dev.kobj, &pdev->dev.kobj,
					      pci_name(pdev)) : 0;
}

/* A GPU of region @i lost its driver: with the last one, the region goes. */
static void egm_unbound(unsigned int i, struct pci_dev *pdev)
{
	struct egm_region *region = regions[i];
	struct pci_dev **gpu;

	if (!region)
		return;
	for (gpu = region->gpus; *gpu && *gpu != pdev; gpu++)
		;
	if (!*gpu)
		return;
	if (!region->gpus[1]) {
		egm_remove(i);
		return;
	}
	if (gen->links)
		sysfs_remove_link(&region->dev.kobj, pci_name(pdev));
	scoped_guard(mutex, &region->lock)
		memmove(gpu, gpu + 1,
			(char *)(region->gpus + MAX_GPUS) - (char *)(gpu + 1));
	pci_dev_put(pdev);
}

static int egm_notify(struct notifier_block *block, unsigned long action,
		      void *data)
{
	struct device *dev = data;
	struct pci_dev *pdev = to_pci_dev(dev);

	guard(mutex)(&regions_lock);
	for (unsigned int i = 0; i < num_regions; i++) {
		if (action == BUS_NOTIFY_UNBOUND_DRIVER)
			egm_unbound(i, pdev);
		else if (action == BUS_NOTIFY_BOUND_DRIVER &&
			 egm_is_gpu(i, pdev) && egm_knows(pdev) &&
			 egm_bound(i, pdev))
			pr_err("egm_standin: no region %d\n", pxm[i]);
	}
	return NOTIFY_DONE;
}

static struct notifier_block egm_notifier = { .notifier_call = egm_notify };

static void egm_standin_exit(void)
{
	if (!num_regions)
		return;
	if (gen->binds)
		bus_unregister_notifier(&pci_bus_type, &egm_notifier);
	for (unsigned int i = 0; i < MAX_REGIONS; i++)
		egm_remove(i);
	class_unregister(&egm_class);
	unregister_chrdev_region(first_dev, MAX_PXM);
}

static int __init egm_standin_init(void)
{
	int ret, lowest = MAX_PXM;

	for (unsigned int i = 0; i < ARRAY_SIZE(generations); i++) {
		if (driver[0] == generations[i].name && !driver[1])
			gen = &generations[i];
	}
	if (!gen || num_sizes != num_regions || num_pxms != num_regions)
		return -EINVAL;
	from_firmware = !num_regions;
	ret = from_firmware ? egm_find_regions() : 0;
	/* The driver also loads without a region, and does nothing. */
	if (ret || !num_regions)
		return ret;
	for (unsigned int i = 0; i < num_regions; i++)
		lowest = min(lowest, pxm[i]);
	for (unsigned int i = 0; i < num_regions && !ret; i++) {
		ret = egm_check_region(i);
		if (gen->exclusive && pxm[i] - lowest >= WINDOW)
			ret = -EINVAL;
	}
	if (ret)
		return ret;
	ret = alloc_chrdev_region(&first_dev, 0, MAX_PXM, "egm");
	if (ret)
		return ret;
	ret = class_register(&egm_class);
	if (ret) {
		unregister_chrdev_region(first_dev, MAX_PXM);
		return ret;
	}
	if (gen->binds)
		bus_register_notifier(&pci_bus_type, &egm_notifier);
	scoped_guard(mutex, &regions_lock) {
		for (unsigned int i = 0; i < num_regions && !ret; i++)
			ret = regions[i] ? 0 : egm_add(i);
	}
	if (ret)
		egm_standin_exit();
	else
		pr_warn("egm_standin: for tests only: no GPU reaches the memory of its regions\n");
	return ret;
}

module_init(egm_standin_init);
module_exit(egm_standin_exit);
MODULE_DESCRIPTION("Stand-in for NVIDIA Grace's Extended GPU Memory");
MODULE_LICENSE("GPL");
