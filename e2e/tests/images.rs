//! The images of the agent and of the controller, built without Docker: what
//! they contain, that their programs need nothing else, and that two builds of
//! the same sources are equal.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use e2e::cluster::workspace;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAMS: [&str; 2] = ["ipvs-agent", "ipvs-controller"];
const ARCHS: [&str; 2] = ["amd64", "arm64"];

/// The images of the workspace for both processors.
static IMAGES: LazyLock<Images> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    Images::build(&workspace(), folder, &ARCHS)
});

/// The images of one build.
struct Images {
    folder: PathBuf,
    /// Digests by the names of the archives.
    digests: BTreeMap<String, String>,
}

impl Images {
    fn build(sources: &Path, folder: PathBuf, archs: &[&str]) -> Self {
        let script = sources.join("e2e/tools/images");
        let mut command = Command::new(script);
        let printed = run(command.arg("--quick").arg(&folder).args(archs));
        let digests = printed.lines().map(|line| {
            let [archive, _, digest, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("a line for each image: {printed}");
            };
            (archive.to_owned(), digest.to_owned())
        });
        let digests = digests.collect();
        Self { folder, digests }
    }

    fn image(&self, program: &str, arch: &str) -> Image {
        Image::unpack(&self.folder.join(format!("{program}-{arch}.tar")))
    }
}

/// An image, unpacked.
struct Image {
    name: String,
    config: Value,
    root: TempDir,
}

impl Image {
    fn unpack(archive: &Path) -> Self {
        let layout = tempfile::tempdir().expect("a folder");
        let root = tempfile::tempdir().expect("a folder");
        untar(archive, layout.path());
        let blob = |digest: &Value| {
            let digest = digest.as_str().expect("a digest");
            layout.path().join("blobs").join(digest.replace(':', "/"))
        };
        let index = read_json(&layout.path().join("index.json"));
        let [image] = &index["manifests"].as_array().expect("images")[..] else {
            panic!("one image: {index}");
        };
        let manifest = read_json(&blob(&image["digest"]));
        for layer in manifest["layers"].as_array().expect("layers") {
            untar(&blob(&layer["digest"]), root.path());
        }
        let name = &image["annotations"]["org.opencontainers.image.ref.name"];
        Self {
            name: name.as_str().expect("a name").to_owned(),
            config: read_json(&blob(&manifest["config"]["digest"])),
            root,
        }
    }

    fn program(&self, name: &str) -> PathBuf {
        self.root.path().join("usr/bin").join(name)
    }

    /// Returns the paths of all files and links, sorted.
    fn files(&self) -> Vec<String> {
        let root = self.root.path();
        let found = run(Command::new("find")
            .current_dir(root)
            .args([".", "!", "-type", "d"]));
        let mut found: Vec<String> = found.lines().map(|path| path[1..].to_owned()).collect();
        found.sort();
        found
    }
}

/// Runs a command and returns its standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error} (make tools)"));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    said
}

fn untar(archive: &Path, folder: &Path) {
    let into = |option: &str| {
        Command::new("tar")
            .arg(option)
            .arg(archive)
            .arg("-C")
            .arg(folder)
            .status()
    };
    assert!(
        into("-xf").expect("tar starts").success(),
        "{} is unpacked",
        archive.display()
    );
}

fn read_json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns each image with the names of its program and its processor.
fn each_image() -> impl Iterator<Item = (&'static str, &'static str, Image)> {
    let pairs = PROGRAMS
        .iter()
        .flat_map(|program| ARCHS.map(|arch| (*program, arch)));
    pairs.map(|(program, arch)| (program, arch, IMAGES.image(program, arch)))
}

#[test]
fn an_image_has_a_program_certificates_and_a_list_of_parts_and_nothing_else() {
    for (program, arch, image) in each_image() {
        let files = [
            "/etc/ssl/certs/ca-certificates.crt",
            &format!("/usr/bin/{program}"),
            &format!("/usr/share/sbom/{program}.cdx.json"),
        ];
        assert_eq!(image.files(), files, "{program} for {arch}");
        let certificates = image.root.path().join(&files[0][1..]);
        let certificates = fs::read_to_string(certificates).expect("certificates are text");
        let count = certificates.matches("BEGIN CERTIFICATE").count();
        assert!(
            count > 50,
            "the certificates of well-known authorities, not {count}"
        );
    }
}

#[test]
fn an_image_says_what_it_is_and_starts_its_program() {
    let revision = run(Command::new("git").current_dir(workspace()).args([
        "describe",
        "--always",
        "--abbrev=40",
        "--match",
        "",
        "--dirty",
    ]));
    for (program, arch, image) in each_image() {
        // The chart's default values name this image.
        let name = format!("docker.io/library/{program}:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(image.name, name);
        assert_eq!(image.config["architecture"], arch);
        let config = &image.config["config"];
        assert_eq!(config["Entrypoint"], json!([format!("/usr/bin/{program}")]));
        let mut labels = config["Labels"].clone();
        let description = labels["org.opencontainers.image.description"].take();
        assert!(
            description.is_string(),
            "{program} has a description: {config}"
        );
        let expected = json!({
            "org.opencontainers.image.title": program,
            "org.opencontainers.image.description": null,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.revision": revision.trim(),
        });
        assert_eq!(labels, expected, "{program} for {arch}");
    }
}

#[test]
fn a_program_is_static_and_starts_in_its_image() {
    for (program, arch, image) in each_image() {
        let headers = run(Command::new("readelf")
            .arg("-lW")
            .arg(image.program(program)));
        assert!(
            !headers.contains("INTERP"),
            "{program} for {arch} is static: {headers}"
        );

        let mut command = Command::new("unshare");
        command
            .arg("--map-root-user")
            .arg("--root")
            .arg(image.root.path());
        if arch == "arm64" {
            let copy = r#"emulator=$(command -v qemu-aarch64-static) ||
                { echo "qemu-aarch64-static is missing: make tools" >&2; exit 1; }
                cp "$emulator" "$0/emulator""#;
            run(Command::new("sh")
                .args(["-ec", copy])
                .arg(image.root.path()));
            command.arg("/emulator");
        }
        let said = run(command.arg(format!("/usr/bin/{program}")).arg("--version"));
        let expected = format!("{program} {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(said.trim(), expected, "for {arch}");
    }
}

#[test]
fn the_list_of_parts_has_the_locked_versions_of_all_crates() {
    let locked = fs::read_to_string(workspace().join("Cargo.lock")).expect("Cargo.lock is text");
    for (program, _, image) in each_image() {
        let list = format!("usr/share/sbom/{program}.cdx.json");
        let list = read_json(&image.root.path().join(list));
        assert_eq!(list["bomFormat"], "CycloneDX");
        assert_eq!(list["metadata"]["component"]["name"], program);
        let mut names = Vec::new();
        for part in list["components"].as_array().expect("components") {
            let text = |key: &str| {
                part[key]
                    .as_str()
                    .unwrap_or_else(|| panic!("{key} of {part}"))
            };
            names.push(text("name"));
            if !text("purl").starts_with("pkg:deb/") && text("name") != "rust-std" {
                let entry = format!(
                    "name = \"{}\"\nversion = \"{}\"\n",
                    text("name"),
                    text("version")
                );
                assert!(locked.contains(&entry), "Cargo.lock has {entry}");
            }
        }
        let crate_of_ours = program.strip_prefix("ipvs-").expect("our prefix");
        for expected in [
            crate_of_ours,
            "crds",
            "kube",
            "ring",
            "ca-certificates",
            "rust-std",
        ] {
            assert!(
                names.contains(&expected),
                "{program} contains {expected}: {names:?}"
            );
        }
        let is_libc = |name: &&str| name.starts_with("libc6-dev");
        assert!(
            names.iter().any(is_libc),
            "{program} contains the C library: {names:?}"
        );
    }
}

#[test]
fn two_builds_of_the_same_sources_in_two_folders_are_equal() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("elsewhere");
    let script = r#"git clone --quiet --no-checkout "$0" "$1"
        git ls-files -z --cached --others --exclude-standard |
            tar -c --null --ignore-failed-read --files-from - | tar -x -C "$1"
        git -C "$1" reset --quiet"#;
    run(Command::new("sh")
        .current_dir(workspace())
        .args(["-ec", script])
        .arg(workspace())
        .arg(&copy));
    // The second build takes compiled dependencies from the first. In these, only
    // mimalloc would contain the time of its compilation.
    let image = IMAGES.image("ipvs-agent", "amd64");
    let agent = fs::read(image.program("ipvs-agent")).expect("the program is read");
    let epoch = b"Jan  1 1970";
    assert!(
        agent.windows(epoch.len()).any(|found| found == epoch),
        "mimalloc has no other date than the epoch's"
    );
    let here = &IMAGES.digests;
    let there = Images::build(&copy, copy.join("target/images"), &ARCHS[..1]);
    for (archive, digest) in &there.digests {
        assert_eq!(
            Some(digest),
            here.get(archive),
            "{archive} is the same from both folders"
        );
    }
    assert_eq!(there.digests.len(), PROGRAMS.len());
}
