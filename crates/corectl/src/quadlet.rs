//! Podman's Quadlet has files that look like unit files and are none: a generator on their own machine makes
//! services of them (podman-systemd.unit(5)). systemd refuses them, so nobody is asked to run one.

use cluster::UnitFile;

const SECTIONS: [&str; 7] = ["Container", "Pod", "Kube", "Volume", "Network", "Build", "Image"];

/// Why the file cannot run as it is, if it is Quadlet's.
pub fn refusal(file: &UnitFile) -> Option<String> {
    let mut sections = file.options().iter().map(|option| option.section.as_str());
    let section = sections.find(|section| SECTIONS.contains(section))?;
    // systemd passes over sections that it does not know.
    if file.values("Service", "ExecStart").next().is_some() {
        return None;
    }
    Some(format!(
        "[{section}] is for Podman's Quadlet, and systemd does not run it; write a .service with \
         ExecStart=/usr/bin/podman run, or give the cluster the one that Quadlet makes of it \
         (/usr/lib/systemd/system-generators/podman-system-generator --dryrun prints it)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quadlets_own_files_are_refused() {
        let check = |text: &str, refused: bool| {
            let refusal = refusal(&UnitFile::parse(text).unwrap());
            assert_eq!(refusal.is_some(), refused, "{text}: {refusal:?}");
        };
        check("[Unit]\nDescription=a\n[Container]\nImage=redis:7\n[Service]\nRestart=always\n", true);
        check("[Kube]\nYaml=a.yml\n", true);
        check("[Service]\nExecStart=/usr/bin/podman run redis:7\n", false);
        check("[X-Container]\nImage=redis:7\n[Service]\nExecStart=/usr/bin/podman run redis:7\n", false);
        check("[Service]\nExecStart=/bin/true\n[Container]\nImage=a\n", false);
    }
}
