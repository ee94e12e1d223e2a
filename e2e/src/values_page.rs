//! Makes the chart's README from the comments of its `values.yaml`.

use serde_json::Value;

/// What precedes the table of values.
const HEAD: &str = "# The chart of ipvs-operator
Installs the controller, and an agent on each node that is a director. [Install, upgrade, uninstall](../../docs/install.md) tells how; this page lists the values. A misspelt value is refused.

`make generate` writes this page from the comments in [values.yaml](values.yaml).

| value | default | what |
|---|---|---|
";

/// A value of the chart, with the comment above it.
struct Described {
    path: Vec<String>,
    comment: String,
}

/// Returns the chart's README.
///
/// # Errors
/// Returns an error if `values` is not YAML.
pub fn values_page(values: &str) -> Result<String, serde_saphyr::Error> {
    let defaults: Value = serde_saphyr::from_str(values)?;
    let described = described(values);
    let mut page = HEAD.to_owned();
    // The values whose defaults contain those of the values in them.
    let mut whole: Vec<&[String]> = Vec::new();
    for value in &described {
        if whole.iter().any(|path| value.path.starts_with(path)) {
            continue;
        }
        let within = |other: &Described| {
            other.path.len() > value.path.len() && other.path.starts_with(&value.path)
        };
        let is_opened = described
            .iter()
            .any(|other| within(other) && !other.comment.is_empty());
        if is_opened && value.comment.is_empty() {
            continue;
        }
        let mut default = String::new();
        if !is_opened {
            default = format!("`{}`", at(&defaults, &value.path));
            whole.push(&value.path);
        }
        let (name, comment) = (value.path.join("."), value.comment.replace('|', "\\|"));
        page += &format!("| `{name}` | {default} | {comment} |\n");
    }
    Ok(page)
}

fn at<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(value, |value, key| &value[key])
}

/// Returns each key of the file in its order, with the comment right above it.
fn described(values: &str) -> Vec<Described> {
    let mut found: Vec<Described> = Vec::new();
    let (mut comment, mut path) = (Vec::new(), Vec::new());
    for line in values.lines() {
        let text = line.trim_start();
        if let Some(said) = text.strip_prefix('#') {
            comment.push(said.trim());
            continue;
        }
        let said = std::mem::take(&mut comment).join(" ");
        let Some((key, _)) = text.split_once(':') else {
            continue;
        };
        if text.starts_with('-') {
            continue;
        }
        path.truncate((line.len() - text.len()) / 2);
        path.push(key.to_owned());
        found.push(Described {
            path: path.clone(),
            comment: said,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_a_row_with_its_comment_and_its_default() {
        let values = r#"# The head.

# The image.
image:
  # Where it is.
  name: web
  tag: ""
replicas: 2
# Rights: a|b.
rights:
  root: true
  drop: [ALL]
"#;
        let page = values_page(values).unwrap();
        let rows: Vec<_> = page.lines().filter(|row| row.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                r#"| `image` |  | The image. |"#,
                r#"| `image.name` | `"web"` | Where it is. |"#,
                r#"| `image.tag` | `""` |  |"#,
                r#"| `replicas` | `2` |  |"#,
                r#"| `rights` | `{"drop":["ALL"],"root":true}` | Rights: a\|b. |"#,
            ]
        );
    }
}
