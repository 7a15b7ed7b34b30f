//! Those who are to decide from the next ring on are asked whether they are there, not only those who decide it.

use super::*;
use crate::ring::{ChangeError, next};

#[tokio::test(start_paused = true)]
async fn who_is_to_decide_has_to_answer_at_that_moment() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 4).await;
    let before = registers[0].current.get().unwrap();
    assert_eq!(before.document().voters, [1, 2, 3]);
    let pass_on = |voters: &[u32]| {
        let voters = voters.to_vec();
        let edit = move |ring: &Ring| {
            if ring.document().voters == voters {
                return Ok(None);
            }
            let mut document = next(ring);
            document.voters.clone_from(&voters);
            Ok(Some(Ring::new(document).map_err(ChangeError::from)?))
        };
        registers[0].change(Duration::from_secs(5), edit)
    };
    // 2's disk was lost a moment ago: three can do without it, it alone cannot decide.
    world.nodes.lock().remove(&2);
    let refused = pass_on(&[2]).await.unwrap_err();
    assert!(matches!(&refused, RegisterError::Refused(ChangeError::TooFew(_))), "{refused}");
    assert!(refused.to_string().starts_with("nodes 2 are to decide"), "{refused}");
    // Nor may two of three be silent; one may.
    world.mute.lock().insert(4);
    let refused = pass_on(&[2, 3, 4]).await.unwrap_err();
    assert!(refused.to_string().starts_with("nodes 2, 4 are to decide"), "{refused}");
    assert_eq!(registers[0].current.epoch(), before.epoch());
    world.mute.lock().remove(&4);
    assert_eq!(pass_on(&[2, 3, 4]).await.unwrap().document().voters, [2, 3, 4]);
    // 2 is there again: of three one may fail, so that it is not left to one, whatever is believed of the others.
    world.start(2).learn(registers[0].current.get().unwrap()).await.unwrap();
    let refused = pass_on(&[3]).await.unwrap_err();
    assert!(refused.to_string().starts_with("nodes 2, 4 answer, and would decide no more"), "{refused}");
    world.mute.lock().insert(4);
    assert_eq!(pass_on(&[3]).await.unwrap().document().voters, [3], "none of three might fail any more");
    world.check(1);
}
