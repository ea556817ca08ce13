//! Memory in huge pages, cut into slots.
//!
//! A slot is memory that its owner has alone, always initialised: zeros at first, then whatever was
//! written to it. Where the system has no huge page to give, it gives small ones, and nothing but
//! the time of the first touch differs.
//!
//! What a slot gives back stays given back. The kernel (`khugepaged`) makes huge pages of small ones
//! in the background, of a range of which a single small page is in use just as well, and with that it
//! takes all of it again. So huge pages are asked for until the first touch, which comes at once, and
//! never again. That goes for every page alike, so that neighbours stay one mapping for the kernel,
//! of which a process may have some ten thousands.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size and alignment of a huge page, in bytes. Elsewhere than on x86-64 and arm64 it may be another;
/// then this is just a mapping of that size.
pub(super) const PAGE_BYTES: usize = 2 << 20;

/// A private anonymous mapping of [`PAGE_BYTES`], aligned to as much.
#[derive(Debug)]
struct Page {
    base: NonNull<u8>,
}

// SAFETY: a mapping belongs to the process, not to a thread; `Page` itself never touches the memory,
// and the slots that do divide it among them.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map() -> Option<Page> {
        let length = 2 * PAGE_BYTES;
        // SAFETY: without MAP_FIXED a new mapping takes no memory that anything else uses.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let start = start.ok()?.cast::<u8>();
        let skip = start.align_offset(PAGE_BYTES);
        let base = start.wrapping_add(skip);
        let behind = base.wrapping_add(PAGE_BYTES);
        for (from, bytes) in [(start, skip), (behind, PAGE_BYTES - skip)] {
            if bytes > 0 {
                // SAFETY: these are the parts of the new mapping before and behind the page, both
                // whole small pages, as mappings and huge pages are aligned to those; nothing
                // points there. Should it fail, they stay mapped and unused.
                let _ = unsafe { munmap(from.cast(), bytes) };
            }
        }
        let page = NonNull::new(base).map(|base| Page { base })?;
        if page.advise(Advice::LinuxHugepage) {
            // SAFETY: the first byte of the page, which nobody else knows yet; it is zero before and
            // after. A volatile write is not left out. (A read would get the page of zeros that all share.)
            unsafe { page.base.as_ptr().write_volatile(0) };
        }
        page.advise(Advice::LinuxNoHugepage).then_some(page)
    }

    /// Says what the kernel should do with the page; false when it did not take note of it.
    fn advise(&self, advice: Advice) -> bool {
        // SAFETY: the page is mapped, and none of these advices changes its content.
        let advised = unsafe { madvise(self.base.as_ptr().cast(), PAGE_BYTES, advice) };
        // A kernel that does not know huge pages does not make them either.
        matches!(advised, Ok(()) | Err(Errno::INVAL))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no slot is left that could use it: each holds the page.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), PAGE_BYTES) };
    }
}

/// A part of a huge page.
#[derive(Debug)]
pub(super) struct Slot {
    page: Arc<Page>,
    /// In the page, in bytes. No other slot of the page overlaps `offset..offset + len`.
    offset: usize,
    len: usize,
}

impl Slot {
    /// A new huge page in slots of `len` bytes, a power of two from one small page to
    /// [`PAGE_BYTES`]; none when the system has no memory to map.
    pub(super) fn of_new_page(len: usize) -> Vec<Slot> {
        assert!(len.is_power_of_two() && (4096..=PAGE_BYTES).contains(&len));
        let Some(page) = Page::map().map(Arc::new) else {
            return Vec::new();
        };
        let slot = |offset| Slot {
            page: Arc::clone(&page),
            offset,
            len,
        };
        (0..PAGE_BYTES).step_by(len).map(slot).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn start(&self) -> *mut u8 {
        self.page.base.as_ptr().wrapping_add(self.offset)
    }

    /// Gives the memory back to the system. The page stays mapped until its last slot goes.
    pub(super) fn release(self) {
        // SAFETY: the range lies in the mapping, and this slot, which ends here, is the only way to
        // its content.
        let _ = unsafe { madvise(self.start().cast(), self.len, Advice::LinuxDontNeed) };
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `offset + len` lies within the page, which stays mapped as long as `self.page`;
        // anonymous memory is always initialised; writers need `&mut self`, and no other slot
        // overlaps this one.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_ref`, and `&mut self` excludes every other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slots_divide_their_page_and_keep_it() {
        for len in [4096, 64 << 10, 1 << 20, PAGE_BYTES] {
            let mut slots = Slot::of_new_page(len);
            assert_eq!(slots.len(), PAGE_BYTES / len);
            assert_eq!(slots[0].start().align_offset(PAGE_BYTES), 0);
            for (n, slot) in slots.iter_mut().enumerate() {
                assert!(slot.as_ref().iter().all(|byte| *byte == 0));
                slot.as_mut().fill(n as u8);
            }
            let last = slots.pop().unwrap();
            for (n, slot) in slots.into_iter().enumerate() {
                assert!(slot.as_ref().iter().all(|byte| *byte == n as u8));
                slot.release();
            }
            let number = (PAGE_BYTES / len - 1) as u8;
            assert!(last.as_ref().iter().all(|byte| *byte == number));
        }
    }

    /// What the kernel says of the mapping that holds a slot: `hg` and `nh` among others.
    fn flags(slot: &Slot) -> Option<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        smaps.lines().find_map(|line| {
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            let hex = |text| usize::from_str_radix(text, 16).ok();
            if let Some((start, end)) = range.and_then(|(a, b)| Some((hex(a)?, hex(b)?))) {
                here = (start..end).contains(&slot.start().addr());
            }
            let flags = line.strip_prefix("VmFlags: ").filter(|_| here)?;
            Some(format!(" {flags} "))
        })
    }

    /// `khugepaged` would fill the page up again, to the last byte of what was given back.
    #[test]
    fn r16_what_was_given_back_does_not_come_back_as_a_huge_page() {
        let mut slots = Slot::of_new_page(64 << 10);
        for slot in &mut slots {
            slot.as_mut().fill(1);
        }
        let kept = slots.pop().unwrap();
        slots.into_iter().for_each(Slot::release);
        let flags = flags(&kept).unwrap();
        assert!(!flags.contains(" hg "), "{flags}");
        let knows_huge_pages = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(flags.contains(" nh "), knows_huge_pages, "{flags}");
        assert!(kept.as_ref().iter().all(|byte| *byte == 1));
    }

    #[test]
    fn slots_go_to_other_threads() {
        let mut slots = Slot::of_new_page(1 << 20);
        std::thread::scope(|scope| {
            for (n, slot) in slots.iter_mut().enumerate() {
                scope.spawn(move || slot.as_mut().fill(n as u8 + 7));
            }
        });
        assert_eq!(slots[0].as_ref()[4095], 7);
        assert_eq!(slots[1].as_ref()[0], 8);
    }
}
