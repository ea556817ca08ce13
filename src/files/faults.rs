//! Faults of the file system, on order: in unit tests the N-th call fails. In every other build
//! there is nothing here, and the calls are made straight.

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Open,
    /// openat2(2).
    OpenBelow,
    /// `O_TMPFILE`.
    OpenUnnamed,
    Stat,
    List,
    ReadLink,
    Read,
    Write,
    /// copy_file_range(2).
    Copy,
    Truncate,
    Sync,
    /// Has what was written written back.
    WriteBack,
    Link,
    Rename,
    /// `RENAME_NOREPLACE`.
    RenameNew,
    /// `RENAME_EXCHANGE`.
    Exchange,
    Unlink,
    Owner,
    Mode,
    Lock,
    /// mkdir(2).
    Make,
    Times,
}

#[cfg(not(test))]
mod none {
    use rustix::io::Result;

    use super::Op;

    /// Nothing, which threads inherit.
    #[derive(Clone, Copy)]
    pub(crate) struct Inherited;

    impl Inherited {
        #[inline(always)]
        pub(crate) fn enter(self) {}
    }

    #[inline(always)]
    pub(crate) fn inherit() -> Inherited {
        Inherited
    }

    #[inline(always)]
    pub(crate) fn before(_: Op) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn length(_: Op, length: usize) -> usize {
        length
    }
}

#[cfg(not(test))]
pub(crate) use none::{before, inherit, length};

#[cfg(test)]
pub(crate) use plan::{Fault, Plan, Reach, before, inherit, length};

#[cfg(test)]
mod plan {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex};

    use rustix::io::{Errno, Result};

    use super::Op;

    /// What goes wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        Fails(Errno),
        /// Less is read or written than was asked for; nothing else is touched.
        Short,
    }

    /// How far it reaches.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Reach {
        /// One call.
        Once,
        /// It, and every later call that does the same.
        Kind,
        /// It, and every later call: the device is gone.
        All,
    }

    /// When something goes wrong, and what.
    #[derive(Debug)]
    pub(crate) struct Plan {
        pub(crate) fault: Fault,
        pub(crate) reach: Reach,
        /// The number of the call at which it begins, from 0.
        pub(crate) at: usize,
        /// What the file system does not know; these calls are not counted.
        pub(crate) lacks: &'static [Op],
        made: Mutex<Vec<Op>>,
    }

    thread_local! {
        static PLAN: RefCell<Option<Arc<Plan>>> = const { RefCell::new(None) };
    }

    impl Plan {
        pub(crate) fn new(
            fault: Fault,
            reach: Reach,
            at: usize,
            lacks: &'static [Op],
        ) -> Arc<Plan> {
            Arc::new(Plan {
                fault,
                reach,
                at,
                lacks,
                made: Mutex::default(),
            })
        }

        /// Does something under the plan: in this thread, and in those that inherit it.
        pub(crate) fn run<T>(self: &Arc<Plan>, work: impl FnOnce() -> T) -> T {
            PLAN.set(Some(Arc::clone(self)));
            let result = work();
            PLAN.set(None);
            result
        }

        /// The calls that were made, in their order.
        pub(crate) fn made(&self) -> Vec<Op> {
            self.made.lock().unwrap().clone()
        }

        /// The call that went wrong first; `None` when none did.
        pub(crate) fn hit(&self) -> Option<Op> {
            self.made.lock().unwrap().get(self.at).copied()
        }

        fn is_hit(&self, op: Op) -> bool {
            let mut made = self.made.lock().unwrap();
            let number = made.len();
            made.push(op);
            let first = made.get(self.at).copied();
            match self.reach {
                _ if number < self.at => false,
                Reach::Once => number == self.at,
                Reach::Kind => first == Some(op),
                Reach::All => true,
            }
        }
    }

    /// The plan of a thread, for one that it starts.
    pub(crate) struct Inherited(Option<Arc<Plan>>);

    impl Inherited {
        pub(crate) fn enter(self) {
            PLAN.set(self.0);
        }
    }

    pub(crate) fn inherit() -> Inherited {
        Inherited(PLAN.with_borrow(Option::clone))
    }

    fn with_plan<T>(ask: impl FnOnce(&Plan) -> T) -> Option<T> {
        PLAN.with_borrow(|plan| plan.as_deref().map(ask))
    }

    pub(crate) fn before(op: Op) -> Result<()> {
        let errno = with_plan(|plan| match plan.fault {
            _ if plan.lacks.contains(&op) => Some(Errno::NOSYS),
            Fault::Fails(errno) if plan.is_hit(op) => Some(errno),
            _ => None,
        });
        errno.flatten().map_or(Ok(()), Err)
    }

    pub(crate) fn length(op: Op, length: usize) -> usize {
        let short = with_plan(|plan| plan.fault == Fault::Short && plan.is_hit(op));
        match short {
            Some(true) => length.div_ceil(2),
            _ => length,
        }
    }
}
