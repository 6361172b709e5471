//! What can be done now, and what is missing for the rest: buttons and keys go by it alike.

use super::App;
use crate::keys::Action;

/// What can be done depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    pub model: ModelState,
    /// Whether the form asks for RALU.
    pub uses_ralu: bool,
    /// Whether the form asks for true guidance.
    pub is_guided: bool,
    pub kept_stage: KeptStage,
    pub picture: Shown,
    pub strip: Strip,
    /// Whether the run that is shown has regions, or comes to them.
    pub has_edges: bool,
    pub shows_edges: bool,
    /// Whether there are runs with RALU and without.
    pub has_both: bool,
    pub compares: bool,
    pub is_painted: bool,
    pub has_loras: bool,
    /// Whether the LoRA that keys move has one weight for all stages in any case.
    pub has_fixed_stages: bool,
    /// Whether a dialog is open.
    pub has_dialog: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    Nothing,
    Opening,
    Open,
}

/// An end of stage 1 to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptStage {
    Nothing,
    /// Of a run with other settings.
    OfOthers,
    Fits,
}

/// The picture that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    Unfinished,
    /// An earlier moment of a finished one.
    Earlier,
    Finished,
}

/// The pictures of the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strip {
    Unfinished,
    /// They went with the GPU.
    Lost,
    Finished,
}

impl Situation {
    /// Why something cannot be done now, and what helps; `None` if it can.
    pub fn obstacle(&self, action: Action) -> Option<&'static str> {
        let has_no_model = self.model == ModelState::Nothing;
        match action {
            Action::Run | Action::RunBoth | Action::MoreGuidance | Action::LessGuidance
                if has_no_model =>
            {
                Some("there is no model: open one (Ctrl+O), or drop it on the window")
            }
            Action::RunBoth if !self.uses_ralu => {
                Some("choose an acceleration to compare plain sampling with (A)")
            }
            Action::Resume => match self.kept_stage {
                KeptStage::Nothing => {
                    Some("there is no finished stage 1 to go on from yet: draw with RALU first (R)")
                }
                KeptStage::OfOthers => {
                    Some("stage 1 was drawn with other settings or another model: draw again (R)")
                }
                KeptStage::Fits => None,
            },
            Action::EditNegative if !self.is_guided => {
                Some("a negative prompt takes true guidance above 1 (K)")
            }
            Action::MoreTrueGuidance | Action::LessTrueGuidance if has_no_model => {
                Some("there is no model to guide: open one (Ctrl+O)")
            }
            Action::Heat if !self.has_edges && !self.shows_edges => {
                Some("there are no edges to show yet: draw with RALU (R)")
            }
            Action::Paint | Action::Erase | Action::ReplaceRegions if !self.uses_ralu => {
                Some("regions are RALU's: choose an acceleration (A)")
            }
            Action::ClearPaint if !self.is_painted => Some("nothing is painted"),
            Action::Compare if !self.has_both && !self.compares => {
                Some("there are no two runs to compare yet: draw both (V)")
            }
            Action::Save => match self.picture {
                Shown::Nothing => Some("there is no picture to save yet"),
                Shown::Unfinished => Some("the picture is not finished yet"),
                Shown::Earlier => {
                    Some("an earlier moment is shown; go to the finished picture (End) to save it")
                }
                Shown::Finished => None,
            },
            Action::SaveStrip => match self.strip {
                Strip::Unfinished => Some("there is no finished run to save a strip of yet"),
                Strip::Lost => Some(
                    "the GPU was lost in this run, and its stages' pictures with it; draw it again (R) to save a strip",
                ),
                Strip::Finished => None,
            },
            Action::NextLora
            | Action::MoreLora
            | Action::LessLora
            | Action::LoraStages
            | Action::RemoveLora
                if !self.has_loras =>
            {
                Some("there is no LoRA: drop one on the window, or type its path (Ctrl+L)")
            }
            Action::LoraStages if self.has_fixed_stages => Some(
                "the changes of this LoRA are merged into weights, so its weight is the same in all stages",
            ),
            Action::OpenModel | Action::OpenFile if self.has_dialog => {
                Some("a dialog is open already")
            }
            _ => None,
        }
    }
}

impl App {
    /// What can be done depends on, now.
    pub fn situation(&self) -> Situation {
        let shown = self.shown();
        // The wipe shows two pictures, and each of them as it is now.
        let moment = self.view.moment.filter(|_| !self.view.compare);
        Situation {
            model: match (&self.model, self.is_opening()) {
                (_, true) => ModelState::Opening,
                (Some(_), false) => ModelState::Open,
                (None, false) => ModelState::Nothing,
            },
            uses_ralu: self.form.uses_ralu(),
            is_guided: self.model.as_ref().is_some_and(|m| self.form.true_guidance(m) > 1.0),
            kept_stage: self.kept_stage(),
            picture: match shown {
                None => Shown::Nothing,
                Some(record) if record.picture.is_none() => Shown::Unfinished,
                Some(record) if record.is_finished_at(moment) => Shown::Finished,
                Some(_) => Shown::Earlier,
            },
            strip: match shown {
                Some(record) if record.goes_on && !record.is_plain() => Strip::Lost,
                Some(record) if record.picture.is_some() => Strip::Finished,
                _ => Strip::Unfinished,
            },
            has_edges: shown.is_some_and(|record| !record.is_plain()),
            shows_edges: self.view.heat,
            has_both: self.plain.is_some() && self.ralu.is_some(),
            compares: self.view.compare,
            is_painted: !self.painted.is_empty(),
            has_loras: !self.loras.rows.is_empty(),
            has_fixed_stages: self.loras.chosen_is_merged(),
            has_dialog: self.dialog.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::BINDINGS;

    /// A window just after its start.
    const FIRST: Situation = Situation {
        model: ModelState::Nothing,
        uses_ralu: true,
        is_guided: false,
        kept_stage: KeptStage::Nothing,
        picture: Shown::Nothing,
        strip: Strip::Unfinished,
        has_edges: false,
        shows_edges: false,
        has_both: false,
        compares: false,
        is_painted: false,
        has_loras: false,
        has_fixed_stages: false,
        has_dialog: false,
    };

    fn is_ready(situation: Situation, action: Action) -> bool {
        situation.obstacle(action).is_none()
    }

    #[test]
    fn without_a_model_nothing_is_drawn() {
        for action in [Action::Run, Action::RunBoth, Action::Resume, Action::Save] {
            assert!(!is_ready(FIRST, action), "{action:?}");
        }
        for action in [Action::OpenModel, Action::OpenFile, Action::EditPrompt, Action::Stop] {
            assert!(is_ready(FIRST, action), "{action:?}");
        }
        let open = Situation { model: ModelState::Open, ..FIRST };
        assert!(is_ready(open, Action::Run) && is_ready(open, Action::RunBoth));
        assert!(!is_ready(Situation { uses_ralu: false, ..open }, Action::RunBoth));
        // What is asked for is drawn when the model is there.
        assert!(is_ready(Situation { model: ModelState::Opening, ..FIRST }, Action::Run));
    }

    #[test]
    fn what_needs_a_run_waits_for_it() {
        let fits = Situation { kept_stage: KeptStage::Fits, ..FIRST };
        assert!(is_ready(fits, Action::Resume));
        let others = Situation { kept_stage: KeptStage::OfOthers, ..FIRST };
        assert!(others.obstacle(Action::Resume).unwrap().contains("other settings"));
        for (picture, ready) in
            [(Shown::Unfinished, false), (Shown::Earlier, false), (Shown::Finished, true)]
        {
            assert_eq!(is_ready(Situation { picture, ..FIRST }, Action::Save), ready);
        }
        let finished = Situation { strip: Strip::Finished, ..FIRST };
        assert!(is_ready(finished, Action::SaveStrip) && !is_ready(FIRST, Action::SaveStrip));
        let lost = Situation { strip: Strip::Lost, ..FIRST };
        assert!(lost.obstacle(Action::SaveStrip).unwrap().contains("the GPU was lost"));
        assert!(is_ready(Situation { has_both: true, ..FIRST }, Action::Compare));
        assert!(is_ready(Situation { has_edges: true, ..FIRST }, Action::Heat));
        // What is on can be switched off.
        assert!(is_ready(Situation { compares: true, ..FIRST }, Action::Compare));
        assert!(is_ready(Situation { shows_edges: true, ..FIRST }, Action::Heat));
    }

    #[test]
    fn controls_of_what_is_off_are_off() {
        let plain = Situation { uses_ralu: false, is_painted: true, ..FIRST };
        for action in [Action::Paint, Action::Erase, Action::ReplaceRegions] {
            assert!(!is_ready(plain, action) && is_ready(FIRST, action), "{action:?}");
        }
        // What was painted can be cleared all the same.
        assert!(is_ready(plain, Action::ClearPaint) && !is_ready(FIRST, Action::ClearPaint));
        let open = Situation { model: ModelState::Open, ..FIRST };
        assert!(!is_ready(open, Action::EditNegative));
        assert!(is_ready(Situation { is_guided: true, ..open }, Action::EditNegative));
        let with_lora = Situation { has_loras: true, ..open };
        for action in [Action::MoreLora, Action::LessLora, Action::NextLora, Action::RemoveLora] {
            assert!(!is_ready(open, action) && is_ready(with_lora, action), "{action:?}");
        }
        let merged = Situation { has_fixed_stages: true, ..with_lora };
        assert!(is_ready(with_lora, Action::LoraStages) && !is_ready(merged, Action::LoraStages));
    }

    /// An obstacle says more than that there is one, and where it names a key, that is one.
    #[test]
    fn obstacles_name_keys_that_there_are() {
        let situations = [FIRST, Situation { uses_ralu: false, ..FIRST }];
        for (situation, binding) in
            situations.iter().flat_map(|s| BINDINGS.iter().map(move |b| (s, b)))
        {
            let Some(obstacle) = situation.obstacle(binding.action) else { continue };
            let named = obstacle.split('(').skip(1).filter_map(|rest| rest.split(')').next());
            for key in named {
                assert!(BINDINGS.iter().any(|binding| binding.shown == key), "{obstacle}");
            }
        }
    }
}
