//! What waits for what in this room, with threads of the system and under a scheduler.

mod flight;
mod limiter;
mod scheduled;
mod shared_work;
mod turns;
