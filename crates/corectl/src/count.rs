//! `start --count`: instances 1 to N of a template. A greater N adds instances; with a smaller one nothing is
//! taken away, and it is said what would.

use std::path::Path;

use anyhow::bail;
use api::Client;
use api::v1::State;
use cluster::UnitName;

use crate::names::unit_name;
use crate::output;

/// The arguments that name the instances, in the templates' place.
pub fn instances(arguments: &[String], count: u32) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for argument in arguments {
        let template = unit_name(argument)?;
        if !template.is_template() {
            bail!(
                "--count is for templates such as {}@.{}, not for {template}",
                template.prefix(),
                template.suffix()
            );
        }
        let path = Path::new(argument);
        for number in 1..=count {
            let instance = format!("{}@{number}.{}", template.prefix(), template.suffix());
            all.push(path.with_file_name(instance).display().to_string());
        }
    }
    Ok(all)
}

/// Says which instances are beyond the number, and how they would go.
pub async fn tell_surplus(client: &Client, templates: &[String], count: u32) -> anyhow::Result<()> {
    let templates: Vec<UnitName> = templates.iter().filter_map(|argument| unit_name(argument).ok()).collect();
    let units = client.units(&[], false).await?.units;
    let is_surplus = |name: &UnitName| {
        let number = name.instance().and_then(|instance| instance.parse::<u32>().ok());
        name.template().is_some_and(|template| templates.contains(&template))
            && number.is_some_and(|number| number > count)
    };
    let wanted = units.iter().filter(|unit| unit.desired_state != State::Inactive && is_surplus(&unit.name));
    let surplus: Vec<&str> = wanted.map(|unit| unit.name.as_str()).collect();
    if !surplus.is_empty() {
        let names = surplus.join(" ");
        output::note(&format!(
            "beyond {count}, and left as they are: {names}; `corectl destroy` takes them away"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_lie_where_their_template_does() {
        let of = |argument: &str| instances(&[argument.to_string()], 2).map_err(|error| error.to_string());
        let two = |a: &str, b: &str| Ok(vec![a.to_string(), b.to_string()]);
        assert_eq!(of("web@.service"), two("web@1.service", "web@2.service"));
        assert_eq!(of("web@"), two("web@1.service", "web@2.service"));
        assert_eq!(of("units/web@.socket"), two("units/web@1.socket", "units/web@2.socket"));
        assert!(of("web.service").unwrap_err().contains("web@.service"));
        assert!(of("web@1.service").is_err());
    }
}
