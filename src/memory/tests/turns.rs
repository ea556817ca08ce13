use std::sync::mpsc;
use std::thread;

use crate::memory::turns::Turns;

#[test]
fn turns_come_in_the_order_in_which_they_were_asked_for() {
    let turns = Turns::new(1);
    let (sender, order) = mpsc::channel();
    thread::scope(|scope| {
        let first = turns.take();
        for number in 0..20 {
            let (turns, sender) = (&turns, sender.clone());
            scope.spawn(move || {
                let _turn = turns.take();
                sender.send(number).unwrap();
            });
            while turns.waiting() <= number {
                thread::yield_now();
            }
        }
        drop(first);
    });
    drop(sender);
    assert!(order.iter().eq(0..20));
    assert_eq!(turns.waiting(), 0);
}
