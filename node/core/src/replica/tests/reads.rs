//! What reads tell, and what they read for it.

use super::*;

/// SIZES-FIRST: of a large value only the size is told where that is asked, and nothing is paid for it.
#[tokio::test]
async fn values_larger_than_asked_for_are_withheld_and_their_sizes_told() {
    let (replica, _) = replica();
    let budget = Budget::new(1 << 20);
    let replica = replica.paid_from(budget.clone());
    let sizes = [10, 1_000, 1_001, 900 << 10];
    let places: Vec<Position> = (0..5).map(|at| place(true, at)).collect();
    let entries = places.iter().zip(sizes).map(|(at, size)| entry(at.clone(), NOW_MS, &vec![7; size]));
    write(&replica, entries.collect()).await.unwrap();
    let read = async |positions: &[Position], largest_bytes| {
        let positions = positions.iter().map(|at| at.clone().into_bytes()).collect();
        match ask(&replica, 4, request::Body::Read(peer::Read { positions, largest_bytes })).await {
            Ok(response::Body::Read(done)) => {
                let told =
                    done.entries.iter().map(|entry| (entry.value.len(), entry.withheld_bytes as usize));
                let there = done.entries.iter().filter(|entry| entry.version.is_some()).count();
                assert!(there == 4 || done.entries.len() == 1);
                told.collect::<Vec<_>>()
            }
            other => panic!("not read: {other:?}"),
        }
    };
    let withheld = [(10, 0), (1_000, 0), (0, 1_001), (0, 900 << 10), (0, 0)];
    assert_eq!(read(&places, 1_000).await, withheld);
    for (place, told) in places.iter().zip(withheld) {
        assert_eq!(read(std::slice::from_ref(place), 1_000).await, [told]);
    }
    assert!(budget.most() < 10_000, "{} were paid for what was not told", budget.most());
    assert_eq!(read(&places, 0).await, [(10, 0), (1_000, 0), (1_001, 0), (900 << 10, 0), (0, 0)]);
}

/// BUDGET: where nothing is left, no more is read than is answered all the same.
#[tokio::test]
async fn one_value_is_read_where_there_is_no_memory_for_another() {
    let (replica, disk) = replica();
    let budget = Budget::new(1 << 20);
    let replica = replica.paid_from(budget.clone());
    let places: Vec<Position> = (0..10).map(|at| place(true, at)).collect();
    let large = "v".repeat(100 << 10);
    let entries = places.iter().map(|at| entry(at.clone(), NOW_MS, large.as_bytes())).collect();
    write(&replica, entries).await.unwrap();
    let read = async || {
        let before = disk.reads();
        let positions = places.iter().map(|at| at.clone().into_bytes()).collect();
        match ask(&replica, 4, request::Body::Read(peer::Read { positions, largest_bytes: 0 })).await {
            Ok(response::Body::Read(done)) => (done.entries.len(), disk.reads() - before),
            other => panic!("not read: {other:?}"),
        }
    };
    assert_eq!(read().await, (10, 10));
    let mut taken = budget.new_charge();
    assert!(taken.insist(2 << 20));
    assert_eq!(read().await, (1, 1));
    // What is damaged is looked at twice, and answers nobody.
    disk.corrupt(Table::Data, places[0].clone().into_bytes());
    write(&replica, vec![entry(place(true, 10), NOW_MS, b"v")]).await.unwrap();
    assert_eq!(read().await, (2, 3));
    drop(taken);
    assert_eq!(budget.used(), 0);
}

/// BUDGET: what is read before it is paid for has a bound in bytes, and what can be paid for is answered.
#[tokio::test]
async fn little_is_read_that_cannot_be_paid_for() {
    // By the index each takes a little more than its value.
    let large = (MAX_VALUE >> 20) - 1;
    for (size, taken, told, looked_up) in [(1 << 20, 0, 1, large), (100 << 10, 300 << 10, 7, 32)] {
        let (replica, disk) = replica();
        let budget = Budget::new(1 << 20);
        let replica = replica.paid_from(budget.clone());
        let places: Vec<Position> = (0..32).map(|at| place(true, at)).collect();
        let value = vec![b'v'; size];
        let entries = places.iter().map(|at| entry(at.clone(), NOW_MS, &value)).collect();
        write(&replica, entries).await.unwrap();
        // Others have taken a part, and gone beyond it.
        let mut beyond = budget.new_charge();
        assert!(beyond.insist(2 << 20));
        beyond.shrink(2 << 20);
        let _taken = budget.take(taken).unwrap();
        let before = disk.reads();
        let positions = places.iter().map(|at| at.clone().into_bytes()).collect();
        match ask(&replica, 4, request::Body::Read(peer::Read { positions, largest_bytes: 0 })).await {
            Ok(response::Body::Read(done)) => {
                assert_eq!((done.entries.len(), disk.reads() - before), (told, looked_up));
            }
            other => panic!("not read: {other:?}"),
        }
    }
}

/// SIZES-FIRST: what is looked at for its size alone has the bound of what is told.
#[tokio::test]
async fn sizes_are_told_of_no_more_than_may_be_read_for_one_answer() {
    let (replica, disk) = replica();
    let budget = Budget::new(1 << 20);
    let replica = replica.paid_from(budget.clone());
    let places: Vec<Position> = (0..32).map(|at| place(true, at)).collect();
    let large = vec![b'v'; 1 << 20];
    let entries = places.iter().map(|at| entry(at.clone(), NOW_MS, &large)).collect();
    write(&replica, entries).await.unwrap();
    let read = async || {
        let before = disk.reads();
        let positions = places.iter().map(|at| at.clone().into_bytes()).collect();
        match ask(&replica, 4, request::Body::Read(peer::Read { positions, largest_bytes: 1_000 })).await {
            Ok(response::Body::Read(done)) => (done.entries.len(), disk.reads() - before),
            other => panic!("not read: {other:?}"),
        }
    };
    let (told, looked_up) = read().await;
    assert!((2..=10).contains(&told) && looked_up <= 18, "{told} told, {looked_up} looked up");
    assert_eq!(budget.used(), 0);
    // Where there is no memory, no more than what is read at once.
    let mut taken = budget.new_charge();
    assert!(taken.insist(2 << 20));
    let (told, looked_up) = read().await;
    assert!((1..=8).contains(&told) && looked_up <= 9, "{told} told, {looked_up} looked up");
}
