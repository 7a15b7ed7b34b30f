//! Who hears of the answers to a batch.

use crate::budget::Paid;
use god_proto::v1::Answer;

/// Takes answers as they come.
pub trait AnswerSink: Send {
    /// Answers of some calls, each with its place in the batch, and what is paid for the values among them.
    fn take(&mut self, answers: Vec<(usize, Answer)>, paid: Paid);
}

/// Keeps them until all are there.
pub struct Collected {
    answers: Vec<Option<Answer>>,
    paid: Paid,
}

impl Collected {
    /// For so many calls.
    pub fn new(count: usize) -> Collected {
        Collected { answers: vec![None; count], paid: Paid::default() }
    }

    /// In the order of the calls.
    pub fn into_answers(self) -> Vec<Answer> {
        let asked = self.answers.len();
        let answers: Vec<Answer> = self.answers.into_iter().flatten().collect();
        assert_eq!(answers.len(), asked, "BATCH-ANSWERED: each call has an answer");
        answers
    }
}

impl AnswerSink for Collected {
    fn take(&mut self, answers: Vec<(usize, Answer)>, paid: Paid) {
        for (slot, answer) in answers {
            if let Some(place) = self.answers.get_mut(slot) {
                *place = Some(answer);
            }
        }
        self.paid.absorb(paid);
    }
}
