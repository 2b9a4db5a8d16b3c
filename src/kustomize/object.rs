//! Rendered objects by what people call them: `AirshipImage/data-plane`.
//!
//! Owns: [`find_object`], [`object_name`]. Kinds match in any case and may carry version and group
//! (`Deployment.v1.apps`, `deployment.apps`), names may carry their namespace (`web.default`).

use super::identity::Id;
use crate::document::{Node, nearest};
use crate::error::{Error, Kind, Result};

/// How many objects a hint lists.
const LISTED: usize = 16;

/// `KIND/NAME`, or `KIND/NAME.NAMESPACE` where an object has one.
pub fn object_name(node: &Node) -> String {
    let id = Id::of(node);
    match id.namespace.is_empty() {
        true => format!("{}/{}", id.kind, id.name),
        false => format!("{}/{}.{}", id.kind, id.name, id.namespace),
    }
}

/// The one object that `wanted` names. An error of kind `Documents` names the nearest ones when there is none.
pub fn find_object<'n>(documents: &'n [Node], wanted: &str) -> Result<&'n Node> {
    let Some((kind, name)) = wanted.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()) else {
        return Err(Error::new(Kind::Usage, format!("`{wanted}` does not name an object"))
            .hint("write KIND/NAME, as in `AirshipImage/data-plane`"));
    };
    let fits = |node: &&Node| is_kind(&Id::of(node), kind) && is_name(&Id::of(node), name);
    let found: Vec<&Node> = documents.iter().filter(fits).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(missing(documents, wanted)),
        [..] => {
            let names: Vec<String> = found.iter().map(|node| full_name(&Id::of(node))).collect();
            Err(Error::documents(format!("more than one object is called `{wanted}`"))
                .hint(format!("name one of them: `{}`", names.join("`, `"))))
        }
    }
}

fn full_name(id: &Id) -> String {
    let dotted = |parts: &[&str]| parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(".");
    format!("{}/{}", dotted(&[&id.kind, &id.version, &id.group]), dotted(&[&id.name, &id.namespace]))
}

fn is_kind(id: &Id, wanted: &str) -> bool {
    let spellings = [
        id.kind.clone(),
        format!("{}s", id.kind),
        format!("{}.{}", id.kind, id.group),
        format!("{}.{}.{}", id.kind, id.version, id.group),
        format!("{}.{}", id.kind, id.version),
    ];
    spellings.iter().any(|spelling| spelling.eq_ignore_ascii_case(wanted))
}

fn is_name(id: &Id, wanted: &str) -> bool {
    let qualified = |namespace: &str| wanted.strip_suffix(namespace).and_then(|rest| rest.strip_suffix('.'));
    wanted == id.name || (!id.namespace.is_empty() && qualified(&id.namespace) == Some(&id.name))
}

fn missing(documents: &[Node], wanted: &str) -> Error {
    let error = Error::documents(format!("there is no object `{wanted}` here"));
    let mut names: Vec<String> = documents.iter().map(object_name).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return error.hint("the folder renders to nothing");
    }
    let near = nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned);
    let kind = wanted.split('/').next().unwrap_or_default().to_lowercase();
    // Objects of the same kind say more than all others.
    names.sort_by_key(|name| !name.to_lowercase().starts_with(&kind));
    let more = if names.len() > LISTED { " ..." } else { "" };
    names.truncate(LISTED);
    let listed = format!("objects: `{}`{more}", names.join("`, `"));
    match near {
        Some(near) => error.hint(format!("did you mean `{near}`? {listed}")),
        None => error.hint(listed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::load_str;

    #[test]
    fn objects_are_found_by_any_of_their_names() {
        let text = "\
            {apiVersion: airshipit.org/v1alpha1, kind: AirshipImage, metadata: {name: data-plane}}\n---\n\
            {apiVersion: v1, kind: Secret, metadata: {name: a.b, namespace: x}}\n---\n\
            {apiVersion: v1, kind: Secret, metadata: {name: a.b, namespace: y}}\n";
        let documents = load_str("t", text).unwrap();
        for name in
            ["AirshipImage/data-plane", "airshipimage/data-plane", "AirshipImage.v1alpha1.airshipit.org/data-plane"]
        {
            assert!(std::ptr::eq(find_object(&documents, name).unwrap(), &documents[0]), "{name}");
        }
        assert!(std::ptr::eq(find_object(&documents, "Secret/a.b.y").unwrap(), &documents[2]));
        let error = find_object(&documents, "Secret/a.b").unwrap_err();
        assert!(error.hints()[0].contains("`Secret.v1/a.b.x`"), "{:?}", error.hints());
        let error = find_object(&documents, "AirshipImage/data-plan").unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
        assert!(error.hints()[0].starts_with("did you mean `AirshipImage/data-plane`?"), "{:?}", error.hints());
        assert_eq!(find_object(&documents, "AirshipImage").unwrap_err().kind().exit_code(), 2);
    }
}
