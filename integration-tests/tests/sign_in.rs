//! People's sign-in for the pages: how a login is held together, how long a session lasts and what ends it, and what a
//! session is good for.

use handoff_domain::time::Span;
use handoff_integration_tests::provider::{Provider, app_with_sign_in};
use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::visitor::{Page, Visitor};
use handoff_integration_tests::{Backend, Client, TestApp, eventually, on_both};
use reqwest::Url;
use serde_json::{Value, json};

const SESSION: &str = "handoff-session";
const LOGIN: &str = "handoff-login-";

/// A link that `ehr` gave to Dr. Lane, and what it is about.
struct Scene {
    app: TestApp,
    provider: Provider,
    ehr: Client,
    page: Url,
    secret: String,
    task: String,
    binary: String,
}

impl Scene {
    async fn set(backend: Backend) -> Self {
        let (app, provider) = app_with_sign_in(backend).await;
        let ehr = provider.client(&app, "ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let task = task("accepted", &letter.id, Some("Practitioner/lane"));
        let task = ehr.post("/fhir/Task", &task).await.expect(201).id();
        let mut scene = Self {
            page: Url::parse(&app.server.base_url).unwrap(),
            secret: String::new(),
            binary: letter.binary,
            app,
            provider,
            ehr,
            task,
        };
        (scene.page, scene.secret) = scene.fresh_link(&letter.id).await;
        scene
    }

    async fn fresh_link(&self, document: &str) -> (Url, String) {
        let ask = json!({"task": format!("Task/{}", self.task), "actor": {"reference": "Practitioner/lane"}});
        let path = format!("/files/{document}/access-grants");
        let grant = self.ehr.post_plain(&path, &ask).await.expect(201).json();
        let (page, secret) = grant["link"].as_str().unwrap().split_once('#').unwrap();
        (Url::parse(page).unwrap(), secret.to_owned())
    }

    fn at(&self, path: &str) -> Url {
        Url::parse(&format!("{}{path}", self.app.server.base_url)).unwrap()
    }

    fn below(&self, path: &str) -> Url {
        Url::parse(&format!("{}/{path}", self.page)).unwrap()
    }

    /// Where the page sends a visitor to sign in.
    async fn login_url(&self, visitor: &mut Visitor) -> Url {
        let shell = visitor
            .get(&self.page)
            .await
            .says(200, "one document for one person");
        let (_, rest) = shell.text.split_once("href=\"").unwrap();
        let href = rest
            .split("href=\"")
            .find(|part| part.contains("/sign-in?"))
            .unwrap();
        let href = href.split('"').next().unwrap().replace("&amp;", "&");
        let begun = visitor.get(&Url::parse(&href).unwrap()).await;
        assert_eq!(begun.status, 303, "{}", begun.text);
        begun.to.unwrap()
    }

    /// Where the provider sends a visitor back to once they have signed in.
    async fn callback(&self, visitor: &mut Visitor, who: &str) -> Url {
        let url = self.login_url(visitor).await;
        visitor.sign_in_at(&self.provider.issuer, url, who).await
    }

    /// Somebody who has signed in.
    async fn signed_in(&self, who: &str) -> Visitor {
        let mut visitor = Visitor::default();
        let back = self.callback(&mut visitor, who).await;
        let landed = visitor.get(&back).await;
        assert_eq!(landed.to.as_ref(), Some(&self.page), "{}", landed.text);
        visitor
    }

    fn session(&self, visitor: &Visitor) -> Option<String> {
        let jar = &visitor.cookies[&self.page.origin().ascii_serialization()];
        jar.get(SESSION).cloned()
    }

    /// The token that forms of the visitor's session carry.
    async fn form(&self, visitor: &mut Visitor) -> String {
        visitor
            .get(&self.page)
            .await
            .says(200, "Signed in as")
            .field("form")
    }

    /// Shows the document.
    async fn look(&self, visitor: &mut Visitor) -> Page {
        let form = self.form(visitor).await;
        let fields = [("form", form.as_str()), ("secret", self.secret.as_str())];
        visitor.post(&self.below("document"), &fields).await
    }
}

on_both! {
    async fn a_session_begins_with_a_login_of_this_browser_alone(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = Visitor::default();
        let url = scene.login_url(&mut lane).await;
        let asked: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["nonce"].len() >= 43 && asked["scope"].contains("openid"), "{asked:?}");
        let back = lane.sign_in_at(&scene.provider.issuer, url, "lane").await;

        // Nobody else's browser ends it: not one without a login, nor one with a login of its own.
        let mut stranger = Visitor::default();
        stranger.get(&back).await.says(400, "tell support this reference");
        let mut other = Visitor::default();
        scene.login_url(&mut other).await;
        other.get(&back).await.says(400, "tell support this reference");
        for (name, value) in [("state", "x.y.z"), ("iss", "https://other.example"), ("code", "made-up"), ("error", "access_denied")] {
            let mut changed = lane.clone();
            let mut url = back.clone();
            let kept: Vec<_> = back.query_pairs().into_owned().filter(|(n, _)| n != name).collect();
            url.query_pairs_mut().clear().extend_pairs(kept).append_pair(name, value);
            let page = changed.get(&url).await;
            assert!(page.status.is_client_error(), "{name}: {}", page.status);
            assert_eq!(scene.session(&changed), None, "{name}");
        }

        // The provider takes a code that was shown twice for stolen, so a fresh login.
        let back = scene.callback(&mut lane, "lane").await;
        let landed = lane.get(&back).await;
        assert_eq!((landed.status.as_u16(), landed.to.as_ref()), (303, Some(&scene.page)), "{}", landed.text);
        for cookie in &landed.set {
            for said in ["HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(cookie.contains(said), "{cookie}");
            }
            assert!(!cookie.contains("Domain"), "{cookie}");
        }
        assert!(scene.session(&lane).is_some());
        // And once only.
        lane.get(&back).await.says(400, "tell support this reference");
        scene.look(&mut lane).await.says(200, "Download");
    }

    async fn a_login_ends_the_session_before_it(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = scene.signed_in("lane").await;
        let mut before = lane.clone();
        scene.form(&mut before).await;
        let origin = scene.page.origin().ascii_serialization();
        // As a visitor who is not signed in sees it, with the session still at hand.
        let mut again = Visitor::default();
        let url = scene.login_url(&mut again).await;
        let logins = again.cookies[&origin].iter().filter(|(name, _)| name.starts_with(LOGIN));
        let logins: Vec<_> = logins.map(|(name, value)| (name.clone(), value.clone())).collect();
        lane.cookies.get_mut(&origin).unwrap().extend(logins);
        let back = lane.sign_in_at(&scene.provider.issuer, url, "lane").await;
        lane.get(&back).await;
        assert_ne!(scene.session(&lane), scene.session(&before));
        scene.form(&mut lane).await;
        before.get(&scene.page).await.says(200, "one document for one person");
    }

    async fn a_session_ends_when_it_is_left_alone_and_when_it_is_old(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = scene.signed_in("lane").await;
        for _ in 0..3 {
            scene.app.clock.advance(Span::minutes(10));
            scene.form(&mut lane).await;
        }
        let mut idle = lane.clone();
        scene.app.clock.advance(Span::minutes(16));
        idle.get(&scene.page).await.says(200, "one document for one person");
        let refused = idle.post(&scene.below("document"), &[("secret", &scene.secret)]).await;
        refused.says(401, "no longer signed in");

        let mut lane = scene.signed_in("lane").await;
        for _ in 0..5 {
            scene.app.clock.advance(Span::minutes(10));
            scene.form(&mut lane).await;
        }
        scene.app.clock.advance(Span::minutes(10));
        lane.get(&scene.page).await.says(200, "one document for one person");
    }

    /// A form counts only in the session that it was made for, from a page of ours, for the link that it shows.
    async fn a_form_of_elsewhere_does_nothing(backend) {
        let scene = Scene::set(backend).await;
        let (mut lane, mut twin) = (scene.signed_in("lane").await, scene.signed_in("lane").await);
        let form = scene.form(&mut lane).await;
        let others = scene.form(&mut twin).await;
        for token in ["", "x", others.as_str()] {
            let fields = [("form", token), ("secret", &scene.secret)];
            lane.post(&scene.page, &fields).await.says(403, "Please sign in");
        }
        let good = [("form", form.as_str()), ("secret", &scene.secret)];
        for headers in [
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "none")],
            [("origin", "https://elsewhere.example")],
            [("origin", "null")],
        ] {
            lane.post_with(&scene.page, &good, &headers).await.says(403, "Please sign in");
        }
        let shown = scene.look(&mut lane).await.field("shown");
        let of_twin = [("form", others.as_str()), ("shown", &shown)];
        twin.post(&scene.page, &of_twin).await.says(403, "Please sign in");
        let other_link = scene.at("/handoff/0");
        let fields = [("form", form.as_str()), ("shown", &shown)];
        lane.post(&other_link, &fields).await.says(403, "Please sign in");
        // Nothing was taken.
        let content = lane.post_with(&scene.page, &fields, &[("origin", &scene.page.origin().ascii_serialization())]).await;
        assert_eq!(content.status, 303, "{}", content.text);
        let content = lane.get(&content.to.unwrap()).await;
        assert_eq!((content.status.as_u16(), content.text.as_str()), (200, "%PDF-1.4 a letter"));
    }

    /// A session is for the pages: no other route takes the cookie, and a redemption stays with its session.
    async fn a_session_opens_pages_and_nothing_else(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = scene.signed_in("lane").await;
        for path in [
            format!("/fhir/Task/{}", scene.task),
            format!("/fhir/Binary/{}?task=Task/{}", scene.binary, scene.task),
            "/fhir/AuditEvent".to_owned(),
            "/admin/revocations".to_owned(),
        ] {
            assert_eq!(lane.get(&scene.at(&path)).await.status, 401, "{path}");
        }
        let shown = scene.look(&mut lane).await;
        let fields = [("form", shown.field("form")), ("shown", shown.field("shown"))];
        let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let to = lane.post(&scene.page, &fields).await.to.unwrap();
        let mut twin = scene.signed_in("lane").await;
        twin.get(&to).await.says(403, "tell support this reference");
        assert_eq!(lane.get(&to).await.text, "%PDF-1.4 a letter");
    }

    /// What others learn: that a link is not theirs where they have its code, and else nothing.
    async fn strangers_learn_nothing(backend) {
        let scene = Scene::set(backend).await;
        let nothing = scene.at("/handoff/00000000000000000000000000000000");
        let mut visitor = Visitor::default();
        let differs = |page: &Page, url: &Url| {
            let handle = url.path_segments().unwrap().next_back().unwrap().to_owned();
            let reference = page.text.split("<code>").nth(1).map(|t| t.split('<').next().unwrap().to_owned());
            let text = page.text.replace(&handle, "HANDLE");
            (page.status, reference.map_or(text.clone(), |r| text.replace(&r, "REFERENCE")))
        };
        let (real, none) = (visitor.get(&scene.page).await, visitor.get(&nothing).await);
        assert_eq!(real.text.replace(scene.page.path_segments().unwrap().next_back().unwrap(), "H"),
            none.text.replace("00000000000000000000000000000000", "H"));

        let mut otis = scene.signed_in("otis").await;
        let form = scene.form(&mut otis).await;
        let wrong = [("form", form.as_str()), ("secret", "guessed")];
        for path in ["", "/document", "/fresh-link"] {
            let of = |url: &Url| Url::parse(&format!("{url}{path}")).unwrap();
            let real = otis.post(&of(&scene.page), &wrong).await;
            let none = otis.post(&of(&nothing), &wrong).await;
            assert_eq!(real.status, 404, "{}", real.text);
            assert_eq!(differs(&real, &scene.page), differs(&none, &nothing), "{path}");
            let right = [("form", form.as_str()), ("secret", scene.secret.as_str())];
            let refused = otis.post(&of(&scene.page), &right).await.says(403, "This link is for somebody else");
            assert!(!refused.text.contains("Ask for a fresh link"), "{}", refused.text);
            assert!(refused.text.contains("Sign out"), "a way to leave: {}", refused.text);
        }
    }

    async fn signing_out_ends_the_session_here_and_the_provider_ends_all_of_its_own(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = scene.signed_in("lane").await;
        let mut kept = lane.clone();
        let form = scene.form(&mut lane).await;
        lane.post(&scene.at("/sign-out"), &[("form", "x")]).await.says(403, "another session");
        let out = lane.post(&scene.at("/sign-out"), &[("form", &form)]).await.says(200, "You are signed out");
        assert_eq!(scene.session(&lane), None);
        kept.get(&scene.page).await.says(200, "one document for one person");
        lane.post(&scene.at("/sign-out"), &[]).await.says(200, "You are signed out");

        // Another session of the same provider session ends when the person signs out there.
        let mut second = lane.clone();
        let back = scene.callback(&mut second, "lane").await;
        second.get(&back).await;
        scene.form(&mut second).await;
        let mut kept = second.clone();
        let href = out.text.split("href=\"").find(|part| part.contains("session/end")).unwrap();
        let href = href.split('"').next().unwrap().replace("&amp;", "&");
        let there = second.get(&Url::parse(&href).unwrap()).await;
        let confirm = Url::parse(&format!("{}/session/end/confirm", scene.provider.issuer)).unwrap();
        let xsrf = there.field("xsrf");
        let done = second.post(&confirm, &[("xsrf", &xsrf), ("logout", "yes")]).await;
        assert_eq!(done.to, Some(scene.at("/signed-out")), "{}", done.text);
        eventually("the provider tells the server", async || {
            kept.get(&scene.page).await.text.contains("one document for one person")
        })
        .await;
        let auditor = scene.provider.client(&scene.app, "auditor").await;
        let rows = auditor.get("/fhir/AuditEvent?subtype=login&_count=50").await.expect(200).json().to_string();
        for act in ["signed-in", "signed-out", "signed-out-by-issuer"] {
            assert!(rows.contains(act), "{act}: {rows}");
        }
    }

    /// Two links at once: neither login ends the other, and a callback of somebody else's making ends none.
    async fn logins_for_two_links_do_not_stand_in_each_others_way(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = Visitor::default();
        let first = scene.login_url(&mut lane).await;
        let other = Scene { page: scene.at("/handoff/00000000000000000000000000000001"), ..scene };
        let second = other.login_url(&mut lane).await;
        lane.get(&other.at("/sign-in/callback?code=x&state=y.z")).await.says(400, "tell support");
        for url in [first, second] {
            let back = lane.sign_in_at(&other.provider.issuer, url, "lane").await;
            let landed = lane.get(&back).await;
            assert_eq!(landed.status, 303, "{}", landed.text);
        }
    }

    /// What browsers promise of a cookie's name they promise of no other way to write it.
    async fn a_cookie_counts_by_its_name_to_the_letter(backend) {
        let scene = Scene::set(backend).await;
        let lane = scene.signed_in("lane").await;
        let value = scene.session(&lane).unwrap();
        let origin = scene.page.origin().ascii_serialization();
        for (cookies, counts) in [
            (vec![(SESSION, value.as_str())], true),
            (vec![("theme", "d\u{e9}j\u{e0}"), (SESSION, value.as_str())], true),
            (vec![("handoff%2Dsession", value.as_str())], false),
            (vec![("Handoff-Session", value.as_str())], false),
            (vec![(SESSION, &format!("\"{value}\""))], false),
            (vec![(SESSION, &value.replace('-', "%2D").replace('_', "%5F"))], !value.contains(['-', '_'])),
        ] {
            let mut visitor = Visitor::default();
            let jar = cookies.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            visitor.cookies.insert(origin.clone(), jar.collect());
            let page = visitor.get(&scene.page).await;
            assert_eq!(page.text.contains("Signed in as"), counts, "{cookies:?}");
        }
    }

    /// Junk that comes back from no issuer is turned away before the issuer hears of it.
    async fn a_flood_of_made_up_codes_is_turned_away(backend) {
        let scene = Scene::set(backend).await;
        let mut visitor = Visitor::default();
        let asked = scene.login_url(&mut visitor).await;
        let state = asked.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let kept = visitor.cookies.clone();
        let mut heard = std::collections::BTreeMap::new();
        for code in 0..130 {
            visitor.cookies.clone_from(&kept);
            let mut url = scene.at("/sign-in/callback");
            url.query_pairs_mut()
                .append_pair("code", &format!("junk{code}"))
                .append_pair("state", &state)
                .append_pair("iss", &scene.provider.issuer);
            let page = visitor.get(&url).await;
            *heard.entry(page.status.as_u16()).or_insert(0) += 1;
            if page.status == 429 {
                assert!(page.headers.contains_key("retry-after"));
                assert!(page.text.contains("Too many tries") && page.text.contains("seconds"), "{}", page.text);
            }
        }
        assert!(heard[&400] >= 100 && heard[&429] >= 20, "{heard:?}");
    }

    /// Another link is offered where it would help, and only there.
    async fn a_fresh_link_is_offered_where_it_would_open(backend) {
        const OFFER: &str = "Ask for a fresh link";
        let scene = Scene::set(backend).await;
        let mut lane = scene.signed_in("lane").await;
        let form = scene.form(&mut lane).await;
        let code = [("form", form.as_str()), ("secret", scene.secret.as_str())];
        // While it opens there is no need.
        lane.post(&scene.below("fresh-link"), &code).await.says(409, "can still be used");
        // On hold nothing opens, and it will again.
        let held = async |status: &str| {
            let at = format!("/fhir/Task/{}", scene.task);
            let mut task = scene.ehr.get(&at).await.expect(200).json();
            task["status"] = json!(status);
            scene.ehr.put(&at, &task).await.expect(200);
        };
        held("on-hold").await;
        let page = lane.post(&scene.page, &code).await.says(403, "The task is paused");
        assert!(!page.text.contains(OFFER), "{}", page.text);
        held("accepted").await;
        // Taken back by its sender, or in an emergency that is over, it stays closed.
        let operator = scene.provider.client(&scene.app, "operator").await;
        let block = json!({"task": format!("Task/{}", scene.task), "reason": "a drill"});
        let block = operator.post_plain("/admin/revocations", &block).await.expect(201).json();
        let page = lane.post(&scene.page, &code).await.says(403, "can’t be given");
        assert!(!page.text.contains(OFFER), "{}", page.text);
        let id = block["id"].as_str().unwrap();
        operator.delete(&format!("/admin/revocations/{id}")).await.expect(204);
        let page = lane.post(&scene.page, &code).await.says(403, OFFER);
        let shown = page.field("shown");
        let ask = [("form", form.as_str()), ("shown", shown.as_str())];
        let asked = lane.post(&scene.below("fresh-link"), &ask).await.says(200, "who decides about it");
        let request = asked.text.split("<code>Task/").nth(1).unwrap().split('<').next().unwrap().to_owned();
        // Declined, that is what the next one hears.
        let at = format!("/fhir/Task/{request}");
        let mut declined = scene.ehr.get(&at).await.expect(200).json();
        declined["status"] = json!("rejected");
        scene.ehr.put(&at, &declined).await.expect(200);
        lane.post(&scene.below("fresh-link"), &ask).await.says(200, "has dealt with that request");
        // Past its due date the Task releases nothing more.
        let at = format!("/fhir/Task/{}", scene.task);
        let mut task = scene.ehr.get(&at).await.expect(200).json();
        task["restriction"] = json!({"period": {"end": "2020-01-01T00:00:00Z"}});
        scene.ehr.put(&at, &task).await.expect(200);
        let page = lane.post(&scene.page, &code).await;
        assert_eq!(page.status, 403);
        assert!(!page.text.contains(OFFER), "{}", page.text);
    }

    async fn an_operators_block_reaches_sessions(backend) {
        let scene = Scene::set(backend).await;
        let mut lane = scene.signed_in("lane").await;
        let operator = scene.provider.client(&scene.app, "operator").await;
        let block = json!({"actor": "Practitioner/lane", "reason": "badge stolen"});
        operator.post_plain("/admin/revocations", &block).await.expect(201);
        let mut kept = lane.clone();
        let fields = [("secret", scene.secret.as_str())];
        let page = lane.post(&scene.page, &fields).await.says(403, "tell support this reference");
        assert!(!page.text.contains("badge"), "{}", page.text);
        // The session is over for good, not only while the block stands.
        let blocks = operator.get("/admin/revocations").await.expect(200).json();
        let id = blocks["revocations"][0]["id"].as_str().unwrap().to_owned();
        operator.delete(&format!("/admin/revocations/{id}")).await.expect(204);
        kept.get(&scene.page).await.says(200, "one document for one person");
    }
}

/// Over https cookies are tied to their host; a tenant has its own, and no other's page takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_are_tied_to_host_and_tenant() {
    let app = TestApp::start_with(Backend::Embedded, |options| {
        options.public_url = Some("https://handoff.example".to_owned());
    })
    .await;
    let mut visitor = Visitor::default();
    for (path, end) in [("", ""), ("/t/b", "-b")] {
        let shell = Url::parse(&format!("{}{path}/handoff/0", app.server.base_url)).unwrap();
        let shell = visitor.get(&shell).await.says(200, "Sign in");
        let href = shell
            .text
            .split("href=\"")
            .find(|part| part.contains("/sign-in?"))
            .unwrap();
        let href = href.split('"').next().unwrap().replace("&amp;", "&");
        let here = href.replace("https://handoff.example", &app.server.base_url);
        let begun = visitor.get(&Url::parse(&here).unwrap()).await;
        let [cookie] = begun.set.as_slice() else {
            panic!("{:?}", begun.set)
        };
        let name = cookie.split('=').next().unwrap();
        assert!(
            name.starts_with("__Host-handoff-login-") && name.ends_with(end),
            "{cookie}"
        );
        assert!(
            cookie.contains("; Secure") && cookie.contains("; Path=/") && !cookie.contains("Domain"),
            "{cookie}"
        );
        let to = begun.to.unwrap().to_string();
        assert!(
            to.contains(&format!(
                "redirect_uri=https%3A%2F%2Fhandoff.example{}%2Fsign-in%2Fcallback",
                path.replace('/', "%2F")
            )),
            "{to}"
        );
    }
    for path in ["/sign-in", "/sign-in?at=none&to=0", "/t/c/sign-in?at=none"] {
        let url = Url::parse(&format!("{}{path}", app.server.base_url)).unwrap();
        visitor.get(&url).await.says(404, "There is nothing here");
    }
}

/// With a token the page's routes answer in JSON, as before there were sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_redeems_and_looks_with_its_token() {
    let app = TestApp::start(Backend::Embedded).await;
    let referral = Referral::set(&app).await;
    let ask = json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
    let path = format!("/files/{}/access-grants", referral.document.id);
    let grant = referral.ehr.post_plain(&path, &ask).await.expect(201).json();
    let (page, secret) = grant["link"].as_str().unwrap().split_once('#').unwrap();
    let path = page.strip_prefix(app.server.base_url.as_str()).unwrap();
    let code = json!({"secret": secret});
    let seen: Value = referral
        .lane
        .post_plain(&format!("{path}/document"), &code)
        .await
        .expect(200)
        .json();
    assert_eq!(seen["contentType"], "application/pdf");
    referral
        .lane
        .post_plain(&format!("{path}/fresh-link"), &code)
        .await
        .refused(409, "invalid");
    referral.lane.post_plain(path, &code).await.expect(303);
    let asked = referral
        .lane
        .post_plain(&format!("{path}/fresh-link"), &code)
        .await
        .expect(200)
        .json();
    let again = referral
        .lane
        .post_plain(&format!("{path}/fresh-link"), &code)
        .await
        .expect(200)
        .json();
    assert_eq!(asked, again, "one request for one link");
    let task = asked["task"].as_str().unwrap();
    referral.ehr.get(&format!("/fhir/{task}")).await.expect(200);
    referral.lane.get(&format!("/fhir/{task}")).await.expect(200);
    // Where another link would not open either, there is nothing to ask for.
    referral.move_to(&referral.ehr, "cancelled").await.expect(200);
    referral
        .lane
        .post_plain(&format!("{path}/fresh-link"), &code)
        .await
        .refused(403, "task-cancelled");
}
