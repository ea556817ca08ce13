//! Memory that this process may have, and how many threads fit into it.
//!
//! A control group that has too little ends a process in the middle of its work, and so does an
//! allocation that a limit of the process refuses. So what works on several threads asks first: by
//! default it takes fewer of them, and says so where not even one fits.

use rustix::process::{Resource, getrlimit};

use super::available;
use super::promise::{BESIDE, MIB};
use crate::error::{Error, Result};
use crate::work::cores;

/// The standard library's stack of a thread, with its guard: addresses, not memory.
const STACK: u64 = (2 << 20) + 4096;

/// How many threads there are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// At least 1.
    pub threads: usize,
    /// Bytes that all may take together; `None` where nothing limits them.
    pub memory: Option<u64>,
    /// What to say of more threads than fit, which were asked for.
    pub warning: Option<String>,
}

/// A limit of this process's own memory (`ulimit -v` and `-d`).
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) command: &'static str,
    /// In bytes; `None` for none.
    pub(crate) most: Option<u64>,
    /// What of it is taken, in bytes.
    pub(crate) taken: u64,
}

/// Those that there are.
pub(crate) fn limits() -> [Limit; 2] {
    // Size, resident, shared, text, library, data and stack; in pages.
    let statm = available::own_pages();
    let page = rustix::param::page_size() as u64;
    let taken = |n: usize| statm.get(n).copied().unwrap_or(0).saturating_mul(page);
    [
        Limit {
            what: "address space",
            command: "ulimit -v",
            most: getrlimit(Resource::As).current,
            taken: taken(0),
        },
        Limit {
            what: "data segment",
            command: "ulimit -d",
            most: getrlimit(Resource::Data).current,
            taken: taken(5),
        },
    ]
}

/// Memory that this process may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Of its control groups.
    group: Option<u64>,
    /// Addresses that its own limits leave.
    space: Option<u64>,
}

impl Room {
    /// As it is now.
    pub(crate) fn here() -> Room {
        let left = limits().map(|limit| Some(limit.most?.saturating_sub(limit.taken)));
        Room {
            group: available::limit(),
            space: left.into_iter().flatten().min(),
        }
    }

    /// For `asked` threads (0 for one per core, or as many as fit), of which so many take `takes` bytes.
    /// `what` says what they do, `advice` how it could do with less.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when not even one fits.
    pub(crate) fn fit(
        &self,
        asked: usize,
        what: &str,
        advice: &str,
        takes: impl Fn(usize) -> u64,
    ) -> Result<Fitted> {
        let fits = |threads: usize| {
            let most = self.memory(threads);
            most.is_none_or(|most| takes(threads) <= most)
        };
        let threads = match asked {
            0 => (1..=cores().max(1)).rev().find(|threads| fits(*threads)),
            _ => Some(asked),
        };
        let said = |threads| {
            let (name, has) = match self.group.filter(|_| self.is_in_group()) {
                Some(group) => ("the memory control group", group),
                None => ("the memory limit", self.space.unwrap_or(0)),
            };
            let needs = takes(threads).saturating_add(self.beside(threads));
            let (has, needs) = (has / MIB, needs.div_ceil(MIB));
            (name, format!("has {has} MiB, {what} needs {needs}"))
        };
        let Some(threads) = threads else {
            let (name, said) = said(1);
            return Err(Error::environment(
                name,
                format!("{said}; give it more{advice}"),
            ));
        };
        let warning = (!fits(threads)).then(|| {
            let (name, said) = said(threads);
            format!("{name} {said} on {threads} threads, and may be killed")
        });
        Ok(Fitted {
            threads,
            memory: self.memory(threads),
            warning,
        })
    }

    /// What so many threads may take.
    fn memory(&self, threads: usize) -> Option<u64> {
        let group = self.group.map(|group| group.saturating_sub(BESIDE));
        let stacks = STACK.saturating_mul(threads as u64);
        let space = self.space.map(|space| space.saturating_sub(stacks));
        group.into_iter().chain(space).min()
    }

    /// True where the group is what limits most.
    fn is_in_group(&self) -> bool {
        self.space
            .is_none_or(|space| self.group.is_some_and(|group| group <= space))
    }

    /// What of that which limits most is not for the work itself.
    fn beside(&self, threads: usize) -> u64 {
        match self.is_in_group() {
            true => BESIDE,
            false => STACK.saturating_mul(threads as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(group: Option<u64>, space: Option<u64>) -> Room {
        let bytes = |mib: u64| mib * MIB;
        Room {
            group: group.map(bytes),
            space: space.map(bytes),
        }
    }

    fn takes(threads: usize) -> u64 {
        (10 + 5 * threads as u64) * MIB
    }

    #[test]
    fn r16_as_many_threads_as_fit_into_the_group() {
        let fit = |room: Room, asked| room.fit(asked, "work", ", or less", takes);
        let free = fit(room(None, None), 0).unwrap();
        assert_eq!((free.threads, free.memory), (cores(), None));
        let one = fit(room(Some(16 + 15), None), 0).unwrap();
        assert_eq!((one.threads, one.memory), (1, Some(15 * MIB)));
        assert_eq!(one.warning, None);
        let all = fit(room(Some(1 << 20), None), 0).unwrap();
        assert_eq!(all.threads, cores());
        let none = fit(room(Some(30), None), 0).unwrap_err().to_string();
        assert_eq!(
            none,
            "the memory control group: has 30 MiB, work needs 31; give it more, or less"
        );
        let none = fit(room(Some(1 << 20), Some(16)), 0)
            .unwrap_err()
            .to_string();
        assert_eq!(
            none,
            "the memory limit: has 16 MiB, work needs 18; give it more, or less"
        );
    }

    #[test]
    fn r16_threads_that_were_asked_for_are_had_with_a_warning() {
        let asked = room(Some(40), None).fit(3, "work", "", takes).unwrap();
        assert_eq!(asked.threads, 3);
        assert_eq!(
            asked.warning.unwrap(),
            "the memory control group has 40 MiB, work needs 41 on 3 threads, and may be killed"
        );
        let fits = room(Some(41), None).fit(3, "work", "", takes).unwrap();
        assert_eq!((fits.threads, fits.warning), (3, None));
    }
}
