//! One realistic element, word for word in each cloud's form. After a change on purpose: `GOLDEN=write`, and look at it.

use serde_json::json;
use skein_cloud::scaling::{Document, Table, Why, adopt, port};
use skein_domain::scaling::Element;

const EXAMPLE: &str = include_str!("../../../../examples/scaling/render.toml");

pub(crate) fn example() -> Element {
    toml::from_str(EXAMPLE).unwrap()
}

#[test]
fn the_example_is_these_documents_and_these_differences() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scaling/golden");
    for cloud in Table::names() {
        let (documents, differences) = port(&example(), &Table::builtin(cloud).unwrap()).unwrap();
        let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
        let said =
            serde_json::to_string_pretty(&json!({"differences": differences, "documents": documents})).unwrap() + "\n";
        let path = dir.join(format!("{cloud}.json"));
        if std::env::var_os("GOLDEN").is_some() {
            std::fs::write(&path, &said).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == said, "{} says otherwise (GOLDEN=write):\n{said}", path.display());
    }
}

/// Fields of a cloud's that the common form does not have are told, and what a cloud calls otherwise is read.
#[test]
fn documents_that_others_made_are_adopted_and_what_is_lost_is_named() {
    let others = json!([
        {"kind": "CreateLaunchTemplate", "body": {"LaunchTemplateName": "web", "LaunchTemplateData": {"ImageId": "ami-1", "EbsOptimized": true}}},
        {"kind": "CreateAutoScalingGroup", "body": {"AutoScalingGroupName": "web", "MinSize": 1, "MaxSize": 4,
            "LaunchTemplate": {"LaunchTemplateName": "web", "Version": "7"}}},
        {"kind": "PutScalingPolicy", "body": {"AutoScalingGroupName": "web", "PolicyName": "More Of Them",
            "PolicyType": "SimpleScaling", "AdjustmentType": "ChangeInCapacity", "ScalingAdjustment": 1}},
        {"kind": "PutMetricAlarm", "body": {"AlarmName": "hot", "MetricName": "CPUUtilization", "Namespace": "AWS/EC2",
            "Statistic": "Average", "Period": 300, "EvaluationPeriods": 2, "Threshold": 70.5,
            "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "breaching",
            "AlarmActions": ["arn:aws:autoscaling:us-east-1:1:scalingPolicy:2:autoScalingGroupName/web:policyName/More Of Them"]}},
    ]);
    let documents: Vec<Document> = serde_json::from_value(others).unwrap();
    let (element, differences) = adopt(&documents, &Table::builtin("aws").unwrap()).unwrap();
    let alarm = &element.alarms["hot"];
    assert_eq!((alarm.threshold.0, alarm.periods, element.metrics["cpu"].period_s), (70_500, 2, 300));
    assert!(element.policies.contains_key("more-of-them"), "{:?}", element.policies);
    let of = |field: &str| {
        differences.iter().find(|d| d.field == field).unwrap_or_else(|| panic!("{field}: {differences:#?}"))
    };
    assert_eq!(of("CreateLaunchTemplate.LaunchTemplateData.EbsOptimized").why, Why::NoPlace);
    assert_eq!(of("PutMetricAlarm.TreatMissingData").why, Why::NoPlace);
    assert_eq!(of("CreateAutoScalingGroup.LaunchTemplate.Version").instead, "$Latest");
    assert_eq!(of("PutScalingPolicy.PolicyName").instead, "more-of-them");
}

#[test]
fn documents_of_nothing_say_what_is_missing() {
    let table = Table::builtin("aws").unwrap();
    let error = adopt(&[], &table).unwrap_err().to_string();
    assert!(error.contains("missing field"), "{error}");
    let error = Table::builtin("moon").unwrap_err().to_string();
    assert!(error.contains("'moon'") && error.contains("aws"), "{error}");
    let error =
        Table::from_toml("mine", "title = \"x\"\n[[document]]\nkind = \"k\"\nfields = [[\"a\", \"b\", \"twice\"]]\n");
    assert!(error.unwrap_err().to_string().contains("'twice' is no conversion"));
}
