//! Schemas of the scalars that have a notation of their own.
//!
//! `x-format` names the notation; [`super::tidy`] and [`super::crd`] turn it into what editors and Kubernetes know.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::api::scalar::{AutoSize, Headroom, Mode, Scalar, Size};

const SIZE: &str = "[0-9]+\\s*(B|k|K|KB|kB|KiB|M|MB|MiB|G|GB|GiB|T|TB|TiB)?";

macro_rules! scalar {
    ($type:ident, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

scalar!(Scalar, "Scalar", json_schema!({"type": "string", "x-format": "scalar"}));
scalar!(
    Mode,
    "Mode",
    json_schema!({
        "type": "string", "x-format": "mode", "pattern": "^(0o)?0*[0-7]{1,4}$", "examples": ["0644"],
        "x-units": "permission bits in octal"
    })
);
scalar!(
    Size,
    "Size",
    json_schema!({
        "type": "string", "x-format": "size", "pattern": format!("^{SIZE}\\s*$"), "examples": ["19G", "512MiB"],
        "x-units": "bytes; K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB of 1000"
    })
);
scalar!(
    AutoSize,
    "AutoSize",
    json_schema!({
        "type": "string", "x-format": "size or auto", "pattern": format!("^\\s*(auto|{SIZE})\\s*$"),
        "examples": ["auto", "512MiB"],
        "x-units": "bytes; K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB of 1000"
    })
);
scalar!(
    Headroom,
    "Headroom",
    json_schema!({
        "type": "string", "x-format": "headroom",
        "pattern": format!("^\\s*([0-9]+\\s*%\\s*(\\+\\s*{SIZE})?|{SIZE})\\s*$"),
        "examples": ["10%", "256MiB", "10%+256MiB"], "x-units": "percent of the content, bytes, or both"
    })
);
