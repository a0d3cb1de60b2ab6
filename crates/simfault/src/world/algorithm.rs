//! A user's algorithm, from dice of its own: it answers late, wrong, with a fault or never while faults happen,
//! and places what can be placed when they are over.

use std::sync::Arc;

use skein_domain::decide::{Answer, Fault, Question};
use skein_engine::core::{ANSWER_MS, Input};

use super::{Coming, World};
use crate::dice::Dice;
use crate::things::CLOUD;

/// The class's name.
pub(super) const CLASS: &str = "luau:dice.luau";

impl World {
    /// The core asks; the answer comes as the rim brings it.
    pub(super) fn ask_algorithm(&mut self, ask: u64, question: &Arc<Question>) {
        self.counts.asked += 1;
        let kind = if self.faults { self.algorithm.below(10) } else { 9 };
        let ms = if kind == 2 { ANSWER_MS + self.algorithm.below(500) } else { 1 + self.algorithm.below(20) };
        let answer = match kind {
            0 => return,
            1 => Err(Fault::Error { what: "drawn".into() }),
            3 => Ok(Answer { places: [(0, "nowhere".to_owned())].into(), ..Answer::default() }),
            _ => Ok(answer(question, &mut self.algorithm, self.faults)),
        };
        self.later(ms, Coming::Engine(self.engine, None, Input::Proposed { ask, answer }));
    }
}

/// Anything that is an answer to this question, whether it fits or not.
fn answer(question: &Question, dice: &mut Dice, wild: bool) -> Answer {
    let mut answer = Answer::default();
    for (at, item) in question.items.iter().enumerate() {
        let fits = &question.fits[item.profile as usize];
        let (among, waits) = if wild { (question.instances.len(), dice.chance(200)) } else { (fits.len(), false) };
        if among == 0 || waits {
            continue;
        }
        let picked = usize::try_from(dice.below(among as u64)).unwrap();
        let picked = if wild { picked } else { fits[picked] as usize };
        answer.places.insert(at, question.instances[picked].id.to_string());
    }
    // Nothing is asked for that nothing waits for: the clouds are to come to rest.
    if !question.items.is_empty() && dice.chance(200) {
        answer.machines.push((CLOUD.to_owned(), u32::try_from(dice.below(4)).unwrap(), "drawn".to_owned()));
    }
    let free = question.instances.iter().filter(|i| i.machine && i.free_since.is_some());
    answer.give_back.extend(free.filter(|_| dice.chance(50)).map(|i| (i.id.to_string(), "drawn".to_owned())));
    answer
}
