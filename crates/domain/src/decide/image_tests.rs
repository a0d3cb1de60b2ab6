//! Choosing an image for a machine: claims 8-11 and 18-20, by example; and that order does not matter.

use super::*;
use crate::image::{Deployed, Offers};
use crate::quantity::Timestamp;

const GIB: u64 = 1 << 30;

fn image(n: u8, name: &str) -> Image {
    let drivers = ["virtio_blk", "nvme"].map(str::to_owned);
    Image {
        id: Digest::new(&format!("{n:02x}").repeat(32)).unwrap(),
        name: name.to_owned(),
        tags: BTreeSet::from(["web".to_owned()]),
        parent: None,
        native: "qcow2".into(),
        virtual_bytes: 4 * GIB,
        data_bytes: GIB,
        offers: Offers {
            os: Some("linux".into()),
            arch: Some("x86_64".into()),
            boot: BTreeSet::from([Boot::Bios, Boot::Uefi]),
            early_drivers: Some(BTreeSet::from(drivers)),
            root_readable: true,
            encrypted: false,
        },
        user: "ann".parse().unwrap(),
        at: Timestamp(i64::from(n)),
        deployed: Vec::new(),
    }
}

fn takes(solution: &str, format: &str) -> Takes {
    Takes {
        solution: solution.parse().unwrap(),
        profile: solution.into(),
        receiver: Receiver::Agent,
        format: format.into(),
        also: BTreeSet::new(),
        size_multiple: 1,
        size: (0, 100 * GIB),
        boot: BTreeSet::from([Boot::Uefi]),
        disk_drivers: BTreeSet::from(["nvme".to_owned()]),
    }
}

fn wants() -> Wants {
    Wants { os: Some("linux".into()), arch: Some("x86_64".into()), ..Wants::default() }
}

#[test]
fn claims_10_and_11_one_image_goes_converted_to_one_cloud_and_as_it_is_kept_to_another() {
    let images = [image(1, "base")];
    let azure = choose(&wants(), &takes("azure", "vhd"), &images).unwrap();
    assert!(matches!(&azure.form, Form::Converted { to, .. } if &**to == "vhd"), "{azure:?}");
    let own = choose(&wants(), &takes("own", "raw"), &images).unwrap();
    assert_eq!((own.form, own.image), (Form::AsStored, azure.image));
    let mut both = takes("stack", "qcow2");
    both.also.insert("raw".into());
    assert_eq!(choose(&wants(), &both, &images).unwrap().form, Form::AsStored);
}

#[test]
fn a_raw_disk_that_must_grow_is_converted() {
    let mut odd = image(1, "base");
    odd.virtual_bytes = 4 * GIB + 512;
    let steps = Takes { size_multiple: GIB, ..takes("lab", "raw") };
    let chosen = choose(&wants(), &steps, &[odd]).unwrap();
    assert_eq!(chosen.virtual_bytes, 5 * GIB);
    assert!(matches!(chosen.form, Form::Converted { .. }));
}

#[test]
fn claims_8_9_18_and_19_the_image_is_found_by_what_is_asked_of_the_machine_and_by_the_solution() {
    let (mut arm, mut windows, mut old_boot, plain) =
        (image(4, "arm"), image(3, "win"), image(5, "bios"), image(2, "plain"));
    arm.offers.arch = Some("aarch64".into());
    windows.offers.os = Some("windows".into());
    old_boot.offers.boot = BTreeSet::from([Boot::Bios]);
    let images = [arm.clone(), windows.clone(), old_boot.clone(), plain.clone()];
    let chosen = choose(&wants(), &takes("aws", "raw"), &images).unwrap();
    assert_eq!(chosen.name, "plain");
    let why = |image: &Image| chosen.passed_over.iter().find(|p| p.image == image.id).unwrap().because.clone();
    assert!(matches!(why(&arm)[..], [Unfit::Arch { .. }]) && matches!(why(&windows)[..], [Unfit::Os { .. }]));
    assert!(matches!(why(&old_boot)[..], [Unfit::Boot { .. }]));
    // The same machine elsewhere: BIOS starts it there, and it is newer.
    let bios = Takes { boot: BTreeSet::from([Boot::Bios]), ..takes("lab", "raw") };
    assert_eq!(choose(&wants(), &bios, &images).unwrap().name, "bios");
}

#[test]
fn the_newest_of_a_name_is_meant_and_tags_sizes_and_names_are_held_to() {
    let (old, mut new) = (image(1, "web"), image(2, "web"));
    new.tags.insert("v2".to_owned());
    let images = [new.clone(), old.clone()];
    let named = |name: &str| Wants { image: Some(name.to_owned()), ..wants() };
    let aws = takes("aws", "raw");
    assert_eq!(choose(&named("web"), &aws, &images).unwrap().image, new.id);
    assert_eq!(choose(&named(&"01".repeat(8)), &aws, &images).unwrap().image, old.id);
    assert!(choose(&named("db"), &aws, &images).is_err());
    let tagged = Wants { tags: BTreeSet::from(["v2".to_owned()]), ..wants() };
    assert_eq!(choose(&tagged, &aws, &images).unwrap().image, new.id);
    let small = Wants { disk_bytes: Some(GIB), ..wants() };
    let none = choose(&small, &aws, &images).unwrap_err();
    assert!(none.iter().all(|p| matches!(p.because[..], [Unfit::LargerThanAsked { .. }])), "{none:?}");
    let tiny = Takes { size: (0, GIB), ..aws };
    assert!(choose(&wants(), &tiny, &images).is_err());
}

#[test]
fn claim_20_what_is_there_already_is_used_again() {
    let mut there = image(1, "base");
    let deployed = Deployed {
        solution: "azure".parse().unwrap(),
        profile: "azure".into(),
        cloud_id: "/images/base".to_owned(),
        at: Timestamp(9),
    };
    there.deployed.push(deployed);
    let chosen = choose(&wants(), &takes("azure", "vhd"), &[there.clone()]).unwrap();
    assert_eq!(chosen.form, Form::There { cloud_id: "/images/base".to_owned() });
    assert_ne!(choose(&wants(), &takes("aws", "vmdk"), &[there]).unwrap().form, chosen.form, "elsewhere it is not");
}

#[test]
fn claims_4_and_13_a_gateway_gets_a_container_which_needs_a_root_file_system_and_no_firmware() {
    let mut image = image(1, "base");
    image.offers.boot.clear();
    let gateway = Takes { receiver: Receiver::Gateway, ..takes("lambda", "oci") };
    let chosen = choose(&wants(), &gateway, &[image.clone()]).unwrap();
    assert!(matches!(chosen.form, Form::Converted { .. }) && chosen.receiver == Receiver::Gateway);
    image.offers.root_readable = false;
    assert!(matches!(choose(&wants(), &gateway, &[image]).unwrap_err()[0].because[..], [Unfit::NoRoot]));
}

#[test]
fn what_could_not_be_seen_is_said_and_loses_to_what_is_known() {
    let (known, mut unseen) = (image(1, "known"), image(2, "unseen"));
    unseen.offers.early_drivers = None;
    let aws = takes("aws", "raw");
    assert_eq!(choose(&wants(), &aws, &[unseen.clone(), known]).unwrap().name, "known");
    let chosen = choose(&wants(), &aws, &[unseen]).unwrap();
    assert_eq!(chosen.unsure, [Unfit::DriversUnseen]);
}

#[test]
fn claims_5_6_15_and_16_a_machine_becomes_an_image_by_its_agent_or_by_its_cloud() {
    let images = [image(1, "web"), image(2, "web"), image(3, "db")];
    let mut facts = crate::testing::facts(1);
    facts.image = Some("web".into());
    let mut instance = Instance {
        id: "m".parse().unwrap(),
        solution: "aws".parse().unwrap(),
        state: InstanceState::Ready,
        facts,
        boot: "b".to_owned(),
        generation: 1,
        held_by: BTreeSet::new(),
        since: Timestamp(0),
        notice: None,
        machine: Some(crate::instance::Machine { cloud_id: Some("i-1".to_owned()) }),
    };
    let up = Live { connected: true, ..Live::default() };
    let parent = Some(images[1].id.clone());
    let by_agent = Capture::ByAgent { parent: parent.clone() };
    assert_eq!(capture(&instance, up, Some("vhd"), &images), Ok(by_agent), "what is there already is not sent");
    let by_cloud = capture(&instance, Live::default(), Some("vhd"), &images).unwrap();
    let native = |capture: &Capture| {
        matches!(capture, Capture::ByCloud { native, cloud_id, parent: p, .. }
        if &**native == "vhd" && cloud_id == "i-1" && *p == parent)
    };
    assert!(native(&by_cloud), "{by_cloud:?}");
    assert_eq!(capture(&instance, Live::default(), None, &images), Err(NoCapture::NoWay));
    instance.state = InstanceState::Booting;
    assert_eq!(capture(&instance, up, None, &images), Err(NoCapture::NotThere(InstanceState::Booting)));
}

#[test]
fn the_order_of_images_changes_nothing_and_every_image_is_accounted_for() {
    let mut random = crate::testing::Random::new(7);
    for _ in 0..500 {
        let count = u8::try_from(random.below(6)).unwrap();
        let mut images: Vec<Image> = (0..count).map(|n| image(n, if n % 2 == 0 { "a" } else { "b" })).collect();
        for image in &mut images {
            image.at = Timestamp(i64::try_from(random.below(2)).unwrap());
            if random.below(3) == 0 {
                image.offers.early_drivers = None;
            }
            if random.below(3) == 0 {
                image.offers.arch = Some("aarch64".into());
            }
        }
        let takes = takes("aws", if random.below(2) == 0 { "raw" } else { "vhd" });
        let first = choose(&wants(), &takes, &images);
        images.reverse();
        assert_eq!(first, choose(&wants(), &takes, &images));
        let seen = match &first {
            Ok(choice) => choice.passed_over.len() + 1,
            Err(passed_over) => passed_over.len(),
        };
        assert_eq!(seen, images.len());
    }
}
