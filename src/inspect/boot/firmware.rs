//! What a virtual machine starts with: BIOS, UEFI, or UEFI with Secure Boot on and the usual keys enrolled.
//!
//! Owns: [`Firmware`] and where distributions put OVMF, QEMU's UEFI
//! (<https://github.com/tianocore/tianocore.github.io/wiki/OVMF>).

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    #[default]
    Bios,
    Uefi,
    UefiSecure,
}

/// The two halves of OVMF: code, and a template of the variable store, of which every machine needs its own copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ovmf {
    pub code: PathBuf,
    pub variables: PathBuf,
}

/// Code and variables must be of one build (2 MB or 4 MB), so they are listed in pairs.
const UEFI: [(&str, &str); 5] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Variables with the keys enrolled that shim is signed for.
const UEFI_SECURE: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"),
    ("/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin"),
];

impl Firmware {
    /// The OVMF files of this machine; `None` for BIOS, which comes with QEMU.
    pub fn ovmf(self) -> Result<Option<Ovmf>> {
        let pairs: &[(&str, &str)] = match self {
            Firmware::Bios => return Ok(None),
            Firmware::Uefi => &UEFI,
            Firmware::UefiSecure => &UEFI_SECURE,
        };
        let found = pairs.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
        match found {
            Some((code, variables)) => Ok(Some(Ovmf { code: code.into(), variables: variables.into() })),
            None => Err(Error::new(Kind::Build, "the UEFI firmware for QEMU (OVMF) is not installed")
                .hint("`imagebuilder doctor` names the package")),
        }
    }
}
