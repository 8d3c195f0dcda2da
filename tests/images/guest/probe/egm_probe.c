// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Report the data that a driver for a GPU with EGM finds in a guest
 *
 * /proc/egm_report makes the calls of such a driver for every PCI function: its
 * NUMA node, which the driver uses as the node of its EGM, its ACPI companion and,
 * if it has at least one of them, its three properties. It also reports the memory and the
 * distances of each NUMA node. In a guest that is emulated in an emulated
 * host, a program for each line would take a minute.
 *
 * /proc/egm_page allocates a page on the NUMA node that was written to it, fills
 * it with the pattern below, and reports its physical address.
 *
 * /proc/egm_fill, when read, allocates all free memory, writes to each
 * word of it, frees it, and reports its size.
 */

#include <linux/acpi.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/proc_fs.h>
#include <linux/property.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>

/* The page holds this, plus its own index, in each of its 64-bit words. */
#define PATTERN 0x45474d2070616765ULL

static struct page *page;

/* The path of a device's ACPI companion, as firmware_node/path in sysfs has it */
static void path_show(struct seq_file *m, struct pci_dev *pdev)
{
	struct acpi_buffer path = { ACPI_ALLOCATE_BUFFER };

	if (ACPI_FAILURE(acpi_get_name(ACPI_HANDLE(&pdev->dev),
				       ACPI_FULL_PATHNAME, &path)))
		return;
	seq_printf(m, "path %s %s\n", pci_name(pdev), (char *)path.pointer);
	kfree(path.pointer);
}

static void nodes_show(struct seq_file *m)
{
	int node, other;

	for_each_online_node(node) {
		unsigned long pages = 0;

		for (int i = 0; i < MAX_NR_ZONES; i++)
			pages += zone_managed_pages(NODE_DATA(node)->node_zones + i);
		seq_printf(m, "memory %d %lu\ndistance %d", node,
			   pages << (PAGE_SHIFT - 10), node);
		for_each_online_node(other)
			seq_printf(m, " %d", node_distance(node, other));
		seq_putc(m, '\n');
	}
}

static int report_show(struct seq_file *m, void *v)
{
	struct pci_dev *pdev = NULL;

	seq_printf(m, "kernel %s\n", init_uts_ns.name.release);
	seq_printf(m, "page_size %lu\n", PAGE_SIZE);
	nodes_show(m);
	for_each_pci_dev(pdev) {
		u64 base = 0, size = 0, pxm = 0;
		int no_base, no_size, no_pxm;

		seq_printf(m, "pci %s node %d\n", pci_name(pdev),
			   dev_to_node(&pdev->dev));
		path_show(m, pdev);
		no_base = device_property_read_u64(&pdev->dev,
						   "nvidia,egm-base-pa", &base);
		no_size = device_property_read_u64(&pdev->dev,
						   "nvidia,egm-size", &size);
		no_pxm = device_property_read_u64(&pdev->dev,
						  "nvidia,egm-pxm", &pxm);
		if (no_base && no_size && no_pxm)
			continue;
		seq_printf(m, "device %s errors %d %d %d base 0x%llx size 0x%llx pxm %llu node %d\n",
			   pci_name(pdev), no_base, no_size, no_pxm, base, size,
			   pxm, pxm_to_node(pxm));
	}
	return 0;
}

static int page_show(struct seq_file *m, void *v)
{
	if (page)
		seq_printf(m, "page 0x%llx node %d\n",
			   (u64)page_to_phys(page), page_to_nid(page));
	return 0;
}

static int page_open(struct inode *inode, struct file *file)
{
	return single_open(file, page_show, NULL);
}

static ssize_t page_write(struct file *file, const char __user *buf,
			  size_t count, loff_t *pos)
{
	int node, err = kstrtoint_from_user(buf, count, 0, &node);
	u64 *word;
	int i;

	if (err)
		return err;
	if (node < 0 || node >= MAX_NUMNODES || !node_online(node))
		return -EINVAL;
	if (page)
		__free_page(page);
	page = alloc_pages_node(node, GFP_KERNEL | __GFP_THISNODE, 0);
	if (!page)
		return -ENOMEM;
	word = page_address(page);
	for (i = 0; i < PAGE_SIZE / sizeof(*word); i++)
		word[i] = PATTERN + i;
	return count;
}

static const struct proc_ops page_ops = {
	.proc_open = page_open,
	.proc_read = seq_read,
	.proc_write = page_write,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static int fill_show(struct seq_file *m, void *v)
{
	gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN;
	unsigned long count = 0;
	struct page *p, *next;
	LIST_HEAD(pages);

	while ((p = alloc_page(gfp))) {
		memset(page_address(p), 0xa5, PAGE_SIZE);
		list_add(&p->lru, &pages);
		count++;
		cond_resched();
	}
	list_for_each_entry_safe(p, next, &pages, lru) {
		list_del(&p->lru);
		__free_page(p);
	}
	seq_printf(m, "fill %lu\n", count * PAGE_SIZE);
	return 0;
}

static int __init egm_probe_init(void)
{
	if (!proc_create_single("egm_report", 0444, NULL, report_show))
		return -ENOMEM;
	if (!proc_create("egm_page", 0644, NULL, &page_ops) ||
	    !proc_create_single("egm_fill", 0444, NULL, fill_show)) {
		remove_proc_entry("egm_page", NULL);
		remove_proc_entry("egm_report", NULL);
		return -ENOMEM;
	}
	return 0;
}

static void __exit egm_probe_exit(void)
{
	remove_proc_entry("egm_fill", NULL);
	remove_proc_entry("egm_page", NULL);
	remove_proc_entry("egm_report", NULL);
	if (page)
		__free_page(page);
}

module_init(egm_probe_init);
module_exit(egm_probe_exit);
MODULE_DESCRIPTION("Report the EGM properties of PCI devices");
MODULE_LICENSE("GPL");
