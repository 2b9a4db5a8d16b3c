//! Rules on the image as a whole: its profile, distribution, accounts and output.

use super::{Subject, on, token};
use crate::api::image_configuration::ImageType;
use crate::api::release::{RELEASES, Release};
use crate::document::{Diagnostic, Node, Value, suggestion};

pub(super) fn node_profile(subject: &Subject) -> Vec<Diagnostic> {
    let Some(wanted) = &subject.image.spec.node_profile else { return Vec::new() };
    let names: Vec<&str> = subject.profiles.iter().filter_map(|profile| name(profile)).collect();
    if names.contains(&wanted.as_str()) {
        return Vec::new();
    }
    let diagnostic = on(subject.document, "/spec/nodeProfile", format!("no NodeProfile is called `{wanted}`"));
    vec![match suggestion(wanted, "NodeProfiles here", &names) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic.hint("add one as a resource, or leave `nodeProfile` out"),
    }]
}

pub(super) fn patch_after_copy(subject: &Subject) -> Vec<Diagnostic> {
    let wanted = subject.image.spec.node_profile.as_deref();
    let Some(profile) = subject.profiles.iter().find(|profile| name(profile) == wanted) else { return Vec::new() };
    let (Some(areas), Some(params)) = (profile.get("spec"), subject.document.pointer("/spec/params")) else {
        return Vec::new();
    };
    let Some(areas) = areas.as_mapping() else { return Vec::new() };
    let differing = areas.entries.iter().filter_map(|area| {
        let copy = params.get(&area.key.text)?;
        difference(&area.value, copy).map(|(profile, image)| (area.key.text.as_str(), profile, image))
    });
    let report = |(area, profile, image): (&str, Option<&Node>, Option<&Node>)| {
        let message = format!("`{area}` differs between NodeProfile and AirshipImage: it was changed after the copy");
        // Whichever side carries the later change is the one to show; the other is the note.
        let (at, other) = match (profile, image) {
            (Some(profile), Some(image)) if changes(profile) >= changes(image) => (profile, Some(image)),
            (profile, Some(image)) => (image, profile),
            (Some(profile), None) => (profile, None),
            (None, None) => return None,
        };
        let mut diagnostic = Diagnostic::on(at, message)
            .hint("patch the NodeProfile below the entry point, in a component listed before `functions/replacements`");
        if let Some(other) = other {
            diagnostic = diagnostic.note(&other.origin.at, "the value on the other side");
        }
        Some(diagnostic)
    };
    differing.filter_map(report).collect()
}

fn changes(node: &Node) -> usize {
    node.origin.changes.len()
}

fn name(document: &Node) -> Option<&str> {
    document.at(&["metadata", "name"])?.text()
}

/// The first place where two values differ: the values on both sides.
#[allow(clippy::type_complexity)]
fn difference<'a>(left: &'a Node, right: &'a Node) -> Option<(Option<&'a Node>, Option<&'a Node>)> {
    match (&left.value, &right.value) {
        (Value::Mapping(a), Value::Mapping(b)) => {
            let in_a = a.entries.iter().find_map(|entry| match b.get(&entry.key.text) {
                Some(other) => difference(&entry.value, other),
                None => Some((Some(&entry.value), None)),
            });
            in_a.or_else(|| {
                b.entries.iter().find(|entry| a.get(&entry.key.text).is_none()).map(|entry| (None, Some(&entry.value)))
            })
        }
        (Value::Sequence(a), Value::Sequence(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(a, b)| difference(a, b))
        }
        _ if left == right => None,
        _ => Some((Some(left), Some(right))),
    }
}

pub(super) fn release_known(subject: &Subject) -> Vec<Diagnostic> {
    let distribution = &subject.image.spec.params.distribution;
    if Release::find(&distribution.name, &distribution.release).is_some() {
        return Vec::new();
    }
    let mut names: Vec<&str> = RELEASES.iter().map(|release| release.distribution).collect();
    names.dedup();
    let (pointer, message, hint) = if !names.contains(&distribution.name.as_str()) {
        let message = match distribution.name.as_str() {
            "" => "`distribution.name` is missing".to_owned(),
            name => format!("unknown distribution `{name}`"),
        };
        ("/distribution/name", message, suggestion(&distribution.name, "known distributions", &names))
    } else {
        let releases: Vec<&str> = RELEASES
            .iter()
            .filter(|release| release.distribution == distribution.name)
            .map(|release| release.name)
            .collect();
        let message = match distribution.release.as_str() {
            "" => "`distribution.release` is missing".to_owned(),
            release => format!("unknown release `{release}` of `{}`", distribution.name),
        };
        ("/distribution/release", message, suggestion(&distribution.release, "known releases", &releases))
    };
    let diagnostic = subject.on(pointer, message);
    vec![match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }]
}

pub(super) fn architecture_known(subject: &Subject) -> Vec<Diagnostic> {
    match subject.image.spec.params.distribution.architecture() {
        "amd64" => Vec::new(),
        other => vec![
            subject
                .on("/distribution/architecture", format!("unknown architecture `{other}`"))
                .hint("known architectures: `amd64`"),
        ],
    }
}

pub(super) fn repositories(subject: &Subject) -> Vec<Diagnostic> {
    let repositories = &subject.image.spec.params.distribution.repositories;
    if repositories.is_empty() {
        let message = "no repository to install packages from";
        return vec![subject.on("/distribution/repositories", message).hint("a release function brings its own")];
    }
    let mut found = Vec::new();
    for (name, repository) in repositories {
        let pointer = format!("/distribution/repositories/{}", token(name));
        let fields = [("source", &repository.source), ("suite", &repository.suite), ("keyring", &repository.keyring)];
        for (field, value) in fields {
            if value.is_empty() {
                found.push(subject.on(&pointer, format!("repository `{name}` has no `{field}`")));
            }
        }
        // A suite that ends in `/` is a flat repository, which has no components.
        if repository.components.is_empty() && !repository.suite.ends_with('/') {
            found.push(subject.on(&pointer, format!("repository `{name}` has no `components`")));
        }
    }
    found
}

pub(super) fn password_hash(subject: &Subject) -> Vec<Diagnostic> {
    let wrong = |(name, _): (&String, &str)| {
        let pointer = format!("/users/{}/password", token(name));
        // The value itself stays out of the message; the place is shown without its line for the same reason.
        let place = subject.document.pointer(&format!("/spec/params{pointer}")).map(|node| node.origin.at.clone());
        let message = format!("the password of user `{name}` is not a crypt(5) hash");
        let diagnostic = match &place {
            Some(at) => Diagnostic::at(at, message).without_text(),
            None => subject.on("/users", message),
        };
        diagnostic.hint("make one with `openssl passwd -6`, or leave `password` out and use `authorized_keys`")
    };
    let users = subject.image.spec.params.users.iter();
    users
        .filter_map(|(name, user)| user.password.as_deref().map(|password| (name, password)))
        .filter(|(_, password)| !is_hash(password))
        .map(wrong)
        .collect()
}

/// `$id$...` with the characters crypt(5) uses, or one of shadow(5)'s ways to say "none".
fn is_hash(password: &str) -> bool {
    if matches!(password, "*" | "!" | "!!" | "!*") {
        return true;
    }
    let hash = password.strip_prefix('!').unwrap_or(password);
    let mut fields = hash.split('$');
    let known = ["1", "2a", "2b", "2y", "5", "6", "7", "gy", "y", "sha1"];
    fields.next() == Some("")
        && fields.next().is_some_and(|id| known.contains(&id))
        && fields.clone().count() >= 2
        && fields.next_back().is_some_and(|digest| digest.len() >= 22)
        && hash.bytes().all(|byte| byte.is_ascii_graphic() && !b":;*!\\".contains(&byte))
}

pub(super) fn output_file_name(subject: &Subject) -> Vec<Diagnostic> {
    let Some((executor, document)) = subject.executor else { return Vec::new() };
    let Some(name) = &executor.spec.image.output_file_name else { return Vec::new() };
    let complain = |message: String| on(document, "/spec/image/outputFileName", message);
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) || name.chars().any(char::is_control) {
        return vec![
            complain(format!("`{name}` is not a file name"))
                .hint("folders come from `container.volume` or `--output-dir`"),
        ];
    }
    let types = executor.spec.image.types.as_slice();
    // `node-1.2` has no extension that anyone would take for a type.
    let meant = ImageType::of_file_name(name).map(|(kind, _, _)| kind);
    let is = |kind: &ImageType| Some(*kind) == meant || *kind == ImageType::Root && meant == Some(ImageType::Tar);
    let fits = types.is_empty() || types.iter().any(is);
    match (fits, meant) {
        (false, Some(meant)) => {
            let types: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            let message =
                format!("`{name}` looks like type `{}`, but the type is `{}`", meant.name(), types.join("`, `"));
            let first = types.first().copied().unwrap_or_default();
            let extension = executor.spec.image.types.as_slice().first().map_or("", |kind| kind.extension());
            vec![complain(message).hint(format!("type `{first}` takes the extension `.{extension}`"))]
        }
        _ => Vec::new(),
    }
}
