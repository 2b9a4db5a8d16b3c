//! Who a seed is for: `meta_data.json`.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Context, Error, Result};
use crate::tree::Digest;

/// What instances of this program are named in (a random number, chosen once).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0b_1c52_93d1_4f0e_9a55_0d5f_c1b7_2e48);
/// As upstream's ephemeral node is called.
const HOSTNAME: &str = "ephemeral";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// As the label `airshipit.org/site` has it.
    pub site: String,
    /// Of the machine, unless its user data say something else. By default that of the BareMetalHost that its network data
    /// belong to.
    pub hostname: Option<String>,
}

impl Identity {
    /// The instance derives from the site and from all that the machine is told, so that each site has its own, a
    /// changed seed makes a new one, and the same documents always give the same.
    pub(super) fn meta_data(&self, user_data: &[u8], network_data: &[u8]) -> Vec<u8> {
        let hostname = self.hostname.as_deref().unwrap_or(HOSTNAME);
        let (user, network) = (Digest::of(user_data), Digest::of(network_data));
        let name = format!("{}\n{hostname}\n{user}\n{network}\n", self.site);
        let uuid = Uuid::new_v5(&NAMESPACE, name.as_bytes());
        let data = json!({
            "uuid": uuid.to_string(),
            "name": hostname,
            "hostname": hostname,
            "meta": {"site": self.site},
        });
        let mut text = serde_json::to_vec_pretty(&data).expect("values without maps of odd keys can be written");
        text.push(b'\n');
        text
    }

    /// Whom an existing seed is for, so that another one is for the same.
    pub fn of_meta_data(bytes: &[u8]) -> Result<Identity> {
        let data: Value =
            serde_json::from_slice(bytes).map_err(std::io::Error::from).context("reading `meta_data.json`")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let site = text(&data["meta"]["site"]);
        let site = site.ok_or_else(|| Error::build("`meta_data.json` does not say which site it is for"))?;
        Ok(Identity { site, hostname: text(&data["hostname"]) })
    }
}
