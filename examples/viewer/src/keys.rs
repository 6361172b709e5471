//! Everything that can be done, with its key: the one list that controls, tooltips and the help share.

use eframe::egui::{self, Key, Modifiers};

/// Something that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Run,
    RunBoth,
    Resume,
    Stop,
    EditPrompt,
    EditNegative,
    EditModel,
    OpenModel,
    OpenFile,
    NextSeed,
    PreviousSeed,
    Wider,
    Narrower,
    Taller,
    Lower,
    NextRalu,
    PreviousRalu,
    NextCache,
    MoreSteps,
    FewerSteps,
    MoreGuidance,
    LessGuidance,
    MoreTrueGuidance,
    LessTrueGuidance,
    NextLora,
    MoreLora,
    LessLora,
    LoraStages,
    RemoveLora,
    LiveLoras,
    ShowMap,
    MoreMap,
    LessMap,
    Heat,
    Paint,
    Erase,
    ClearPaint,
    LargerBrush,
    SmallerBrush,
    ReplaceRegions,
    Back,
    Forward,
    Live,
    Compare,
    WipeLeft,
    WipeRight,
    Save,
    SaveStrip,
    Figures,
    Frames,
    Help,
    ReopenGpu,
    Close,
}

impl Action {
    /// Whether what is typed next is for a field.
    fn chooses_a_field(self) -> bool {
        matches!(self, Action::EditPrompt | Action::EditNegative | Action::EditModel)
    }
}

/// An action, its key, and what it does in words.
pub struct Binding {
    pub action: Action,
    pub modifiers: Modifiers,
    pub key: Key,
    pub shown: &'static str,
    pub what: &'static str,
}

const fn plain(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    Binding { action, modifiers: Modifiers::NONE, key, shown, what }
}

const fn shift(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    Binding { action, modifiers: Modifiers::SHIFT, key, shown, what }
}

const fn both(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    let modifiers = Modifiers { shift: true, ..Modifiers::COMMAND };
    Binding { action, modifiers, key, shown, what }
}

const fn command(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    Binding { action, modifiers: Modifiers::COMMAND, key, shown, what }
}

/// Keys with more modifiers stand before those with fewer, which they would be taken for.
pub const BINDINGS: &[Binding] = &[
    command(Action::Run, Key::Enter, "Ctrl+Enter", "draw the picture"),
    command(Action::SaveStrip, Key::E, "Ctrl+E", "save the strip of stages as one PNG"),
    command(Action::Save, Key::S, "Ctrl+S", "save the picture as a PNG that knows how it was made"),
    both(
        Action::OpenFile,
        Key::O,
        "Ctrl+Shift+O",
        "choose a file to open: a model's, a LoRA, or a picture that ralu made",
    ),
    both(Action::ReopenGpu, Key::G, "Ctrl+Shift+G", "close the GPU and open it again"),
    command(Action::OpenModel, Key::O, "Ctrl+O", "choose a model folder to open"),
    command(
        Action::EditModel,
        Key::L,
        "Ctrl+L",
        "type the path of a model, a LoRA or a picture to open",
    ),
    shift(Action::PreviousSeed, Key::D, "Shift+D", "the seed before"),
    shift(Action::PreviousRalu, Key::A, "Shift+A", "the acceleration before"),
    shift(Action::Narrower, Key::W, "Shift+W", "make it narrower"),
    shift(Action::Lower, Key::H, "Shift+H", "make it lower"),
    shift(Action::FewerSteps, Key::S, "Shift+S", "fewer steps of plain sampling"),
    shift(Action::LessGuidance, Key::G, "Shift+G", "less guidance"),
    shift(Action::LessTrueGuidance, Key::K, "Shift+K", "less true guidance"),
    shift(Action::LessLora, Key::Z, "Shift+Z", "less of the chosen LoRA"),
    shift(Action::Erase, Key::B, "Shift+B", "erase painted regions with the pointer"),
    shift(Action::WipeLeft, Key::ArrowLeft, "Shift+Left", "move the wipe to the left"),
    shift(Action::WipeRight, Key::ArrowRight, "Shift+Right", "move the wipe to the right"),
    plain(Action::Run, Key::R, "R", "draw the picture"),
    plain(Action::RunBoth, Key::V, "V", "draw it with RALU and without, to compare"),
    plain(
        Action::Resume,
        Key::F,
        "F",
        "draw again from the end of stage 1, with the painted regions",
    ),
    plain(Action::Stop, Key::Escape, "Esc", "stop at once"),
    plain(Action::EditPrompt, Key::P, "P", "type the prompt"),
    plain(Action::EditNegative, Key::N, "N", "type what the picture should not show"),
    plain(Action::NextSeed, Key::D, "D", "the next seed"),
    plain(Action::Wider, Key::W, "W", "make it wider"),
    plain(Action::Taller, Key::H, "H", "make it taller"),
    plain(Action::NextRalu, Key::A, "A", "the next acceleration"),
    plain(Action::NextCache, Key::C, "C", "the next temporal cache"),
    plain(Action::MoreSteps, Key::S, "S", "more steps of plain sampling"),
    plain(Action::MoreGuidance, Key::G, "G", "more guidance"),
    plain(
        Action::MoreTrueGuidance,
        Key::K,
        "K",
        "more true guidance, for a negative prompt; 1 is off",
    ),
    plain(Action::NextLora, Key::J, "J", "choose the next LoRA, or stage of one, for keys"),
    plain(Action::MoreLora, Key::Z, "Z", "more of the chosen LoRA"),
    plain(
        Action::LoraStages,
        Key::O,
        "O",
        "a weight for each stage of the chosen LoRA, or one for all",
    ),
    plain(Action::RemoveLora, Key::Delete, "Delete", "remove the chosen LoRA"),
    plain(Action::LiveLoras, Key::Y, "Y", "draw again when a weight changes, or only when asked"),
    plain(Action::ShowMap, Key::M, "M", "show the picture or its tokens"),
    plain(Action::MoreMap, Key::Period, ".", "fade towards the tokens"),
    plain(Action::LessMap, Key::Comma, ",", "fade towards the picture"),
    plain(Action::Heat, Key::E, "E", "show where stage 1 has edges"),
    plain(Action::Paint, Key::B, "B", "paint regions with the pointer"),
    plain(Action::ClearPaint, Key::X, "X", "clear the painted regions"),
    plain(Action::LargerBrush, Key::CloseBracket, "]", "a larger brush"),
    plain(Action::SmallerBrush, Key::OpenBracket, "[", "a smaller brush"),
    plain(
        Action::ReplaceRegions,
        Key::U,
        "U",
        "painted regions instead of the found ones, or added to them",
    ),
    plain(Action::Back, Key::ArrowLeft, "Left", "a step back"),
    plain(Action::Forward, Key::ArrowRight, "Right", "a step on"),
    plain(Action::Live, Key::End, "End", "the latest step"),
    plain(Action::Compare, Key::L, "L", "wipe between plain and RALU"),
    plain(Action::Figures, Key::I, "I", "show or hide the figures"),
    plain(Action::Frames, Key::T, "T", "draw all the time, and measure frames"),
    command(Action::Close, Key::Q, "Ctrl+Q", "close the window"),
    plain(Action::Help, Key::F1, "F1", "show all keys"),
];

/// The tooltip of an action.
pub fn tip(action: Action) -> String {
    let mut found = BINDINGS.iter().filter(|binding| binding.action == action);
    let Some(first) = found.next() else { return String::new() };
    let keys = found.fold(first.shown.to_owned(), |keys, more| format!("{keys}, {}", more.shown));
    let mut what = first.what.to_owned();
    if let Some(letter) = what.get_mut(..1) {
        letter.make_ascii_uppercase();
    }
    format!("{what}  ({keys})")
}

/// What the keys that were pressed ask for, in their order: between two slow frames there may be many, some of them for a
/// field that one of them has chosen. `typing` says whether a field had the focus in the frame before.
pub fn pressed(context: &egui::Context, typing: bool) -> Vec<Action> {
    let has_focus = context.egui_wants_keyboard_input();
    context.input_mut(|input| taken(&mut input.events, typing || has_focus, has_focus))
}

/// Takes the keys that mean actions out of `events`.
fn taken(events: &mut Vec<egui::Event>, mut typing: bool, has_focus: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    // A letter that was a key is no text for the field that it may have chosen.
    let mut letter = false;
    events.retain(|event| match event {
        egui::Event::Key { key: Key::Escape, pressed: true, .. } if typing && !has_focus => {
            // It has left the field; what follows is for the window again.
            typing = false;
            true
        }
        egui::Event::Key { key, pressed: true, modifiers, .. } => {
            // Letters belong to a field that has the focus.
            let found = BINDINGS.iter().find(|binding| {
                binding.key == *key
                    && modifiers.matches_logically(binding.modifiers)
                    && (!typing || binding.modifiers.command)
            });
            if let Some(binding) = found {
                letter = !binding.modifiers.command;
                typing |= binding.action.chooses_a_field();
                actions.push(binding.action);
            }
            found.is_none()
        }
        egui::Event::Text(_) => !std::mem::take(&mut letter),
        _ => true,
    });
    actions
}

/// Width of a window that has room for two columns of keys.
const WIDE: f32 = 960.0;

/// The list of all keys, as a window: those that need one finger first.
pub fn help(context: &egui::Context, open: &mut bool) {
    let mut bindings: Vec<&Binding> = BINDINGS.iter().collect();
    bindings.sort_by_key(|binding| (binding.modifiers.command, binding.modifiers.shift));
    let window = egui::Window::new("Keys").open(open).resizable(false).collapsible(false);
    window.anchor(egui::Align2::CENTER_CENTER, [0.0, 0.0]).show(context, |ui| {
        let room = context.content_rect().size();
        let high = (room.y - 120.0).max(60.0);
        let columns = if room.x < WIDE { 1 } else { 2 };
        egui::ScrollArea::vertical().max_height(high).min_scrolled_height(high).show(ui, |ui| {
            ui.horizontal_top(|ui| {
                for (i, part) in bindings.chunks(bindings.len().div_ceil(columns)).enumerate() {
                    egui::Grid::new(i).num_columns(2).spacing([14.0, 0.0]).show(ui, |ui| {
                        for binding in part {
                            ui.colored_label(crate::theme::AMBER, binding.shown);
                            ui.label(binding.what);
                            ui.end_row();
                        }
                    });
                    ui.add_space(14.0);
                }
            });
            ui.add_space(6.0);
            let text = "Drop a model, a LoRA for it, or a picture that ralu made on the window to open it.";
            ui.colored_label(crate::theme::QUIET, text);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: Key, modifiers: Modifiers) -> egui::Event {
        egui::Event::Key { key, physical_key: None, pressed: true, repeat: false, modifiers }
    }

    /// A letter key, as winit tells of it.
    fn letter(which: Key, text: &str) -> [egui::Event; 2] {
        [key(which, Modifiers::NONE), egui::Event::Text(text.into())]
    }

    fn texts(events: &[egui::Event]) -> String {
        let text = |event: &egui::Event| match event {
            egui::Event::Text(text) => text.clone(),
            _ => String::new(),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn what_follows_the_key_of_a_field_is_its_text() {
        let mut events: Vec<_> =
            [letter(Key::M, "m"), letter(Key::P, "p"), letter(Key::M, "m"), letter(Key::T, "t")]
                .concat();
        assert_eq!(taken(&mut events, false, false), [Action::ShowMap, Action::EditPrompt]);
        assert_eq!(texts(&events), "mt");
    }

    #[test]
    fn a_field_with_the_focus_keeps_its_letters() {
        let mut events = letter(Key::R, "r").to_vec();
        events.push(key(Key::S, Modifiers::COMMAND));
        events.extend(letter(Key::E, "e"));
        assert_eq!(taken(&mut events, true, true), [Action::Save]);
        assert_eq!(texts(&events), "re");
        // Left by Escape since the frame before: what came earlier was text, what came later is not.
        let mut events = letter(Key::R, "r").to_vec();
        events.push(key(Key::Escape, Modifiers::NONE));
        events.extend(letter(Key::E, "e"));
        assert_eq!(taken(&mut events, true, false), [Action::Heat]);
    }

    #[test]
    fn more_modifiers_win_and_no_key_means_two_things() {
        let mut events = vec![key(Key::O, Modifiers::COMMAND | Modifiers::SHIFT)];
        assert_eq!(taken(&mut events, false, false), [Action::OpenFile]);
        for binding in BINDINGS {
            let mut events = vec![key(binding.key, binding.modifiers)];
            assert_eq!(taken(&mut events, false, false), [binding.action], "{}", binding.shown);
            assert!(!tip(binding.action).is_empty());
        }
    }
}
