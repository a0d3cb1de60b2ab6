//! A few signed calls of our own to an emulator of AWS: setting up, reading back.

use jiff::Timestamp;
use skein_cloud::Secret;
use skein_cloud::sign::{AwsKey, SigV4, Signer as _, Unsigned};

pub const REGION: &str = "us-east-1";

pub struct Aws {
    base: reqwest::Url,
    pub key: AwsKey,
    http: reqwest::Client,
}

pub struct Said {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// Text between the first pair of these marks.
    pub fn element(&self, name: &str) -> String {
        let text = self.text();
        let rest = text.split(&format!("<{name}>")).nth(1).unwrap_or_else(|| panic!("no {name}: {text}"));
        rest.split('<').next().unwrap().to_owned()
    }
}

impl Aws {
    /// With a key that may do everything, at an emulator that checks signatures from then on.
    pub async fn new(url: &str) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let key = AwsKey { access_key: "test".to_owned(), secret_key: Secret::new("test"), session_token: None };
        let mut aws =
            Self { base: url.parse().unwrap(), key, http: reqwest::Client::builder().no_proxy().build().unwrap() };
        aws.form("iam", "Action=CreateUser&UserName=u&Version=2010-05-08").await;
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        let put = format!("Action=PutUserPolicy&UserName=u&PolicyName=p&PolicyDocument={policy}&Version=2010-05-08");
        aws.form("iam", &put).await;
        let made = aws.form("iam", "Action=CreateAccessKey&UserName=u&Version=2010-05-08").await;
        aws.unchecked_calls(0).await;
        aws.key.access_key = made.element("AccessKeyId");
        aws.key.secret_key = Secret::new(made.element("SecretAccessKey").replace("&amp;", "&"));
        aws
    }

    /// So many calls are not checked by moto.
    pub async fn unchecked_calls(&self, calls: u32) {
        let url = self.base.join("/moto-api/reset-auth").unwrap();
        assert!(self.http.post(url).body(calls.to_string()).send().await.unwrap().status().is_success());
    }

    pub async fn form(&self, service: &'static str, body: &str) -> Said {
        self.call(service, "POST", "/", &[], body.as_bytes().to_vec()).await
    }

    pub async fn call(
        &self,
        service: &'static str,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Said {
        let form = vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        let mut unsigned = Unsigned {
            method: method.to_owned(),
            base: self.base.clone(),
            path: path.to_owned(),
            query: query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            headers: if method == "POST" { form } else { Vec::new() },
            body: body.clone().into(),
        };
        let signer = SigV4 { key: self.key.clone(), region: REGION.to_owned(), service };
        signer.sign(&mut unsigned, Timestamp::now()).await.unwrap();
        let mut request = self.http.request(method.parse().unwrap(), unsigned.url().unwrap()).body(body);
        for (name, value) in &unsigned.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        Said { status: response.status().as_u16(), body: response.bytes().await.unwrap().to_vec() }
    }
}
