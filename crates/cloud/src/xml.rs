//! The little XML that storage services speak: texts of elements, by name.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Depth beyond which no answer of a service goes.
const DEPTH_MAX: usize = 32;

/// Texts of the elements `names` right below each element `item`, in order; an element that is missing is an empty
/// text. What is called `item` within an `item` belongs to it.
pub(crate) fn items<const N: usize>(xml: &str, item: &str, names: [&str; N]) -> Vec<[String; N]> {
    let mut found = Vec::new();
    let mut current: Option<(usize, [String; N])> = None;
    walk(xml, |path, event| {
        let is_item = path.last().is_some_and(|name| name == item);
        match (event, current.as_mut()) {
            (Walked::Open, None) if is_item => current = Some((path.len(), std::array::from_fn(|_| String::new()))),
            (Walked::Close, Some((depth, _))) if path.len() == *depth => {
                found.extend(current.take().map(|(_, texts)| texts));
            }
            (Walked::Text(text), Some((depth, texts))) if path.len() == *depth + 1 => {
                if let Some(at) = path.last().and_then(|last| names.iter().position(|name| name == last)) {
                    texts[at].push_str(text);
                }
            }
            _ => {}
        }
    });
    found
}

/// Text of the first element of this name.
pub(crate) fn text(xml: &str, name: &str) -> Option<String> {
    let mut found: Option<String> = None;
    let mut done = false;
    walk(xml, |path, event| {
        if done || path.last().is_none_or(|last| last != name) {
            return;
        }
        match event {
            Walked::Open => found = Some(String::new()),
            Walked::Text(text) => found.get_or_insert_default().push_str(text),
            Walked::Close => done = true,
        }
    });
    found
}

/// `text` in an element.
pub(crate) fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

enum Walked<'a> {
    Open,
    Text(&'a str),
    Close,
}

/// Goes through it; what is no XML ends it.
fn walk(xml: &str, mut see: impl FnMut(&[String], Walked<'_>)) {
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) if path.len() < DEPTH_MAX => {
                path.push(start.local_name().as_ref().to_owned());
                see(&path, Walked::Open);
            }
            Ok(Event::Empty(empty)) => {
                path.push(empty.local_name().as_ref().to_owned());
                see(&path, Walked::Open);
                see(&path, Walked::Close);
                path.pop();
            }
            Ok(Event::End(_)) => {
                see(&path, Walked::Close);
                path.pop();
            }
            Ok(Event::Text(text)) => see(&path, Walked::Text(&text.xml10_content())),
            Ok(Event::GeneralRef(entity)) => see(&path, Walked::Text(&resolve(&entity))),
            Ok(Event::CData(data)) => see(&path, Walked::Text(&data)),
            Ok(Event::Eof | Event::Start(_)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn resolve(entity: &quick_xml::events::BytesRef<'_>) -> String {
    if let Ok(Some(char)) = entity.resolve_char_ref() {
        return char.to_string();
    }
    quick_xml::escape::resolve_predefined_entity(entity).unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_name_with_their_entities() {
        let xml = "<?xml version=\"1.0\"?><R xmlns=\"x\"><Part><N>1</N><E>&quot;a&#38;b&quot;</E></Part><Part><N>2</N></Part><T>true</T></R>";
        assert_eq!(
            items(xml, "Part", ["N", "E"]),
            [["1".to_owned(), "\"a&b\"".to_owned()], ["2".to_owned(), String::new()]]
        );
        let nested = "<s><item><id>a</id><tags><item><id>b</id></item></tags></item><item><id>c</id></item></s>";
        assert_eq!(items(nested, "item", ["id"]), [["a".to_owned()], ["c".to_owned()]]);
        assert_eq!(text(xml, "T").as_deref(), Some("true"));
        assert_eq!(text(xml, "Gone"), None);
        assert_eq!(text("not xml <", "T"), None);
    }
}
