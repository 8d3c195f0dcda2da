/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iommufd for memory without struct page, mapped by its address.
 *
 * Included before the first line of the kernel's pages.c. There it stands before
 * the functions that pin and unpin, and passes "pages" of the memory from one
 * to the other. They are numbers: that there is no page is never seen, as
 * pages.c only asks for their page frame.
 */

#include <linux/mm.h>
#include <linux/moduleparam.h>

#ifndef CONFIG_SPARSEMEM_VMEMMAP
#error "page_to_pfn() reads the page"
#endif

static bool pfnmap;
module_param(pfnmap, bool, 0600);
MODULE_PARM_DESC(pfnmap, "map memory without struct page");

/* The page frame at @address, or a negative error */
static long pfnmap_frame(struct vm_area_struct *vma, unsigned long address,
			 bool write)
{
	struct follow_pfnmap_args args = { .vma = vma, .address = address };
	bool unlocked = false;
	long frame;
	int rc;

	rc = follow_pfnmap_start(&args);
	if (rc) {
		rc = fixup_user_fault(vma->vm_mm, address,
				      write ? FAULT_FLAG_WRITE : 0, &unlocked);
		/* Once unlocked, vma may be gone. */
		if (rc || unlocked)
			return rc ?: -EAGAIN;
		rc = follow_pfnmap_start(&args);
		if (rc)
			return rc;
	}
	frame = write && !args.writable ? -EFAULT : args.pfn;
	follow_pfnmap_end(&args);
	return frame;
}

static int pfnmap_pin(unsigned long start, int count, unsigned int flags,
		      struct page **pages)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	int rc, i;

	rc = pin_user_pages_fast(start, count, flags, pages);
	if (rc != -EFAULT || !pfnmap)
		return rc;

	mmap_read_lock(mm);
	for (i = 0; i < count; i++) {
		unsigned long address = start + i * PAGE_SIZE;
		long frame = -EAGAIN;

		while (frame == -EAGAIN) {
			vma = vma_lookup(mm, address);
			frame = vma && vma->vm_flags & VM_PFNMAP ?
				pfnmap_frame(vma, address, flags & FOLL_WRITE) :
				-EFAULT;
		}
		/* What has a page, others count and free. */
		if (frame < 0 || pfn_valid(frame))
			break;
		pages[i] = pfn_to_page(frame);
	}
	mmap_read_unlock(mm);
	return i ?: -EFAULT;
}

static void pfnmap_unpin_range(struct page *page, unsigned long count,
			       bool dirty)
{
	if (pfn_valid(page_to_pfn(page)))
		unpin_user_page_range_dirty_lock(page, count, dirty);
}

static void pfnmap_unpin(struct page **pages, unsigned long count)
{
	unsigned long i;

	for (i = 0; i < count; i++)
		pfnmap_unpin_range(pages[i], 1, false);
}

#define pin_user_pages_fast pfnmap_pin
#define unpin_user_pages pfnmap_unpin
#define unpin_user_page_range_dirty_lock pfnmap_unpin_range
