//! What holds every removal, however small, beside the budget of the
//! [`crate::decide::guard`]: another cluster than the one that this director's table
//! is of, or a custom resource definition that is going, takes the objects away
//! with it, and nobody meant them. Pure.
//!
//! An input that asks an API server looks at both *after* the objects of a
//! listing came or an object went, and tells what it found *before* it passes
//! that on ([`crate::input::origin`]). So nothing is known here only as long
//! as there is nothing to remove, or where there is no API server.

use std::{collections::BTreeMap, fmt};

use crate::decide::retain::Removals;

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// The cluster whose API server answers.
    Cluster(Answer<String>),
    /// The custom resource definition of that name.
    Definition(&'static str, Answer<Definition>),
}

/// What came of a look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer<T> {
    /// This.
    Is(T),
    /// Nothing, for this reason; it is looked at again.
    None(String),
    /// The agent is not allowed to look: its RBAC is that of an older chart,
    /// whose agents had the budget alone.
    NotAllowed,
}

/// How a custom resource definition is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Definition {
    /// As it is to be.
    Stands,
    /// Somebody deletes it: its objects go first, one by one.
    Terminating,
    /// It is not there.
    Missing,
    /// It is another one than the objects were of: theirs is gone.
    Replaced,
}

/// Why every removal is held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hold {
    /// The objects are another cluster's than those that were programmed.
    OtherCluster {
        /// The UID of namespace kube-system there.
        was: String,
        /// And here.
        is: String,
    },
    /// A definition goes or is gone, and its objects with it.
    Definition(&'static str, Definition),
    /// Whether it is one of the others is not known.
    Unknown(String),
}

impl Hold {
    /// Whether what is held stays held when the reason is gone, until it is
    /// released or wanted again: a definition that is back is an empty one.
    fn lasts(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster { was, is } => write!(
                f,
                "this director's table is of the cluster whose namespace kube-system has the UID \
                 {was}, and the API server that answers now is of another one, {is}: the agent was \
                 given another kubeconfig, or etcd was emptied. If it is a mistake, give the agent \
                 its cluster back"
            ),
            Self::Definition(name, Definition::Terminating) => write!(
                f,
                "CustomResourceDefinition {name} is being deleted, and its objects with it; install \
                 the chart's CRDs again when it is gone, and then the objects"
            ),
            Self::Definition(name, _) => write!(
                f,
                "CustomResourceDefinition {name} was deleted, and its objects with it; install the \
                 chart's CRDs again, and then the objects"
            ),
            Self::Unknown(why) => write!(f, "{why}; trying again"),
        }
    }
}

/// What is known of the cluster and of the definitions.
#[derive(Clone, Debug, Default)]
pub struct Caution {
    /// The cluster that this director's table is of, by its journal.
    remembered: Option<String>,
    /// The journal does not remember it yet.
    is_unsaved: bool,
    cluster: Option<Answer<String>>,
    definitions: BTreeMap<&'static str, Answer<Definition>>,
}

impl Caution {
    /// Takes in what the journal says of the cluster, whatever was taken for it
    /// while there was no journal.
    pub fn remember(&mut self, cluster: Option<String>) {
        if cluster.is_some() {
            self.remembered = cluster;
            self.is_unsaved = false;
        }
    }

    /// Takes in what an input found. True when it is news.
    pub fn hear(&mut self, word: Word) -> bool {
        match word {
            Word::Cluster(answer) => {
                let answer = Some(answer);
                let is_news = self.cluster != answer;
                self.cluster = answer;
                is_news
            }
            Word::Definition(name, answer) => {
                let before = self.definitions.insert(name, answer);
                before.as_ref() != self.definitions.get(name)
            }
        }
    }

    /// Why every removal is held, if it is.
    pub fn hold(&self) -> Option<Hold> {
        let other = match (&self.remembered, &self.cluster) {
            (Some(was), Some(Answer::Is(is))) if was != is => Some(Hold::OtherCluster {
                was: was.clone(),
                is: is.clone(),
            }),
            _ => None,
        };
        let gone = self.definitions.iter().find_map(|(name, answer)| {
            let Answer::Is(how) = answer else { return None };
            (*how != Definition::Stands).then_some(Hold::Definition(name, *how))
        });
        let unknown = || {
            let definitions = self.definitions.values().filter_map(unanswered);
            let all = self
                .cluster
                .iter()
                .filter_map(unanswered)
                .chain(definitions);
            all.map(Hold::Unknown).next()
        };
        other.or(gone).or_else(unknown)
    }

    /// Whether the objects are another cluster's. Then the virtual addresses
    /// stay where they are as well: who is to hold them is that cluster's word.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.hold(), Some(Hold::OtherCluster { .. }))
    }

    /// Whether what is no longer wanted may be removed, now that all objects are
    /// known. The first cluster is this director's from now on; another one is,
    /// when the removals are released.
    pub fn judge(&mut self, is_released: bool) -> Removals {
        if let Some(Answer::Is(found)) = &self.cluster
            && (is_released || self.remembered.is_none())
            && self.remembered.as_ref() != Some(found)
        {
            self.remembered = Some(found.clone());
            self.is_unsaved = true;
        }
        match self.hold() {
            _ if is_released => Removals::Released,
            None => Removals::Guarded,
            Some(hold) => Removals::Held {
                lasting: hold.lasts(),
            },
        }
    }

    /// The cluster that the journal has to remember, unless it does already.
    pub fn unsaved(&self) -> Option<&str> {
        let remembered = self.remembered.as_deref();
        remembered.filter(|_| self.is_unsaved)
    }

    /// The journal remembers the cluster.
    pub fn saved(&mut self) {
        self.is_unsaved = false;
    }
}

fn unanswered<T>(answer: &Answer<T>) -> Option<String> {
    match answer {
        Answer::None(why) => Some(why.clone()),
        Answer::Is(_) | Answer::NotAllowed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "ipvsvirtualservices.ipvs.dev";
    const HELD: Removals = Removals::Held { lasting: true };

    fn cluster(uid: &str) -> Word {
        Word::Cluster(Answer::Is(uid.to_owned()))
    }

    fn definition(how: Definition) -> Word {
        Word::Definition(SERVICES, Answer::Is(how))
    }

    /// A director of cluster a, all of whose inputs have answered.
    fn settled() -> Caution {
        let mut caution = Caution::default();
        caution.hear(cluster("a"));
        caution.hear(definition(Definition::Stands));
        assert_eq!(caution.judge(false), Removals::Guarded);
        caution
    }

    #[test]
    fn without_an_api_server_there_is_the_budget_alone() {
        assert_eq!(Caution::default().judge(false), Removals::Guarded);
        assert_eq!(Caution::default().judge(true), Removals::Released);
    }

    #[test]
    fn the_first_cluster_is_saved_once() {
        let mut caution = settled();
        assert_eq!(caution.unsaved(), Some("a"));
        caution.judge(false);
        assert_eq!(caution.unsaved(), Some("a"), "until the journal has it");
        caution.saved();
        caution.judge(false);
        assert_eq!(caution.unsaved(), None);
    }

    #[test]
    fn a_journal_that_comes_late_knows_better() {
        let mut caution = settled();
        caution.remember(None);
        assert!(
            caution.unsaved().is_some(),
            "what was found meanwhile is saved"
        );
        caution.remember(Some("b".to_owned()));
        assert_eq!(caution.judge(false), HELD);
        assert_eq!(caution.unsaved(), None);
    }

    #[test]
    fn another_cluster_holds_everything_until_it_is_released_and_is_ours_then() {
        let mut caution = Caution::default();
        caution.remember(Some("a".to_owned()));
        caution.hear(cluster("b"));
        assert_eq!(caution.judge(false), HELD);
        assert!(caution.is_elsewhere());
        let message = caution.hold().expect("it is held").to_string();
        for part in ["UID a", "another one, b"] {
            assert!(message.contains(part), "{part} in: {message}");
        }

        assert_eq!(caution.judge(true), Removals::Released);
        assert_eq!(caution.judge(false), Removals::Guarded, "b is ours now");
        assert_eq!(caution.unsaved(), Some("b"));
        caution.hear(cluster("a"));
        assert_eq!(caution.judge(false), HELD, "and a is another one");
    }

    #[test]
    fn the_own_cluster_again_holds_nothing_any_more() {
        let mut caution = settled();
        caution.hear(cluster("b"));
        assert_eq!(caution.judge(false), HELD);
        caution.hear(cluster("a"));
        assert_eq!(caution.judge(false), Removals::Guarded);
    }

    #[test]
    fn a_definition_that_is_not_there_or_goes_holds_everything() {
        for how in [
            Definition::Terminating,
            Definition::Missing,
            Definition::Replaced,
        ] {
            let mut caution = settled();
            assert!(caution.hear(definition(how)), "it is news");
            assert!(!caution.hear(definition(how)), "and only once");
            assert_eq!(caution.judge(false), HELD, "{how:?}");
            assert!(!caution.is_elsewhere(), "it says nothing of the holder");
            let message = caution.hold().expect("it is held").to_string();
            assert!(message.contains(SERVICES), "{message}");
            assert_eq!(caution.judge(true), Removals::Released, "{how:?}");
            caution.hear(definition(Definition::Stands));
            assert_eq!(caution.judge(false), Removals::Guarded);
        }
    }

    #[test]
    fn who_has_no_answer_waits_for_it_and_forgets_nothing() {
        let no_answer = || "no answer about it".to_owned();
        let waits = Removals::Held { lasting: false };
        let mut caution = settled();
        caution.hear(Word::Cluster(Answer::None(no_answer())));
        assert_eq!(caution.judge(false), waits);
        caution.hear(cluster("b"));
        assert_eq!(caution.judge(false), HELD, "a was not forgotten");

        let mut caution = settled();
        caution.hear(Word::Definition(SERVICES, Answer::None(no_answer())));
        assert_eq!(caution.judge(false), waits);
        caution.hear(definition(Definition::Terminating));
        assert_eq!(caution.judge(false), HELD);
    }

    #[test]
    fn an_agent_that_may_not_look_has_the_budget_alone() {
        let mut caution = Caution::default();
        caution.hear(Word::Cluster(Answer::NotAllowed));
        caution.hear(Word::Definition(SERVICES, Answer::NotAllowed));
        assert_eq!(caution.judge(false), Removals::Guarded);
    }
}
