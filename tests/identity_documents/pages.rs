//! AWS's page of certificates in its forms, made of the embedded certificates and of others.

use std::fmt::Write;
use std::sync::LazyLock;

use muster::aws::RegionCertificates;

use crate::forge::Forge;

/// A region that nobody knows yet, and what signs its documents.
pub(crate) const NEW_REGION: &str = "xx-moon-1";
pub(crate) static MOON: LazyLock<Forge> = LazyLock::new(|| Forge::new("Moon", NEW_REGION));

/// Under the other headings stand other certificates, and as in China one has an RSA-2048 key.
pub(crate) static OTHER: LazyLock<Forge> = LazyLock::new(|| Forge::new("Not for this", "xx-y-1"));
const SMALL: &str = include_str!("../data/rsa1024.pem");

/// A section of the page: a region, and what stands under its RSA-2048 heading.
pub(crate) struct Section {
    pub(crate) region: String,
    pub(crate) name: String,
    pub(crate) pems: Vec<String>,
}

pub(crate) fn section(region: &str, pems: &[String]) -> Section {
    Section { region: region.to_owned(), name: "Some (Place)".to_owned(), pems: pems.to_vec() }
}

/// The sections of all embedded certificates.
pub(crate) fn embedded() -> Vec<Section> {
    RegionCertificates::embedded()
        .list()
        .into_iter()
        .map(|one| section(one.region().as_str(), &[one.to_pem()]))
        .collect()
}

pub(crate) fn pem_of(forge: &Forge) -> String {
    forge.trusted.list()[0].to_pem()
}

/// The form in which the guide is written.
pub(crate) fn markdown(sections: &[Section]) -> String {
    let mut page =
        "# Certificates<a name=\"regions-certs\"></a>\n\nThe RSA-2048 kind.\n\n".to_owned();
    for Section { region, name, .. } in sections {
        writeln!(page, "+ [{name} — {region}](#{region}-cert)").unwrap();
    }
    for Section { region, name, pems } in sections {
        writeln!(page, "\n## {name} — {region}\n<a name=\"{region}-cert\"></a>\n\n------").unwrap();
        for (kind, pems) in [
            ("DSA", vec![pem_of(&OTHER)]),
            ("RSA", vec![SMALL.to_owned()]),
            ("RSA-2048", pems.clone()),
        ] {
            write!(page, "#### [ {kind} ]\n\n").unwrap();
            for pem in pems {
                write!(page, "```\n{}\n```\n\n", pem.trim()).unwrap();
            }
        }
        page.push_str("------\n");
    }
    page
}

/// As the guide's server sends it: expandable sections, the kinds as terms of a list.
pub(crate) fn html(sections: &[Section]) -> String {
    html_with(sections, |Section { region, name, pems }| {
        let terms = [
            ("DSA", vec![pem_of(&OTHER)]),
            ("RSA", vec![SMALL.to_owned()]),
            ("RSA-2048", pems.clone()),
        ]
        .map(|(kind, pems)| {
            let blocks: Vec<String> = pems.iter().map(|pem| code(pem.trim())).collect();
            format!("<dt><span class=\"term\">{kind}</span></dt>\n<dd>{}</dd>", blocks.concat())
        });
        format!(
            "<awsui-expandable-section variant=\"container\" header=\"{name} &mdash; {region}\" \
             id=\"{region}-cert\"><dl>{}</dl></awsui-expandable-section>",
            terms.concat()
        )
    })
}

/// As a browser saves it: the tabs first and then their panels, line breaks lost, signs escaped.
pub(crate) fn rendered(sections: &[Section]) -> String {
    html_with(sections, |Section { region, name, pems }| {
        let tabs = ["DSA", "RSA", "RSA-2048"]
            .map(|kind| format!("<li role=\"tab\"><a href=\"#x\"><span>{kind}</span></a></li>"));
        let panels: Vec<String> = [pem_of(&OTHER), SMALL.to_owned()]
            .iter()
            .chain(pems)
            .map(|pem| {
                let line = pem.trim().replace('\n', " ").replace('+', "&#43;");
                format!("<div role=\"tabpanel\">{}</div>", code(&line))
            })
            .collect();
        format!(
            "<div id=\"{region}-cert\"><h3><button><span>{name}</span> &#8212; \
             <span>{region}</span></button></h3><ul>{}</ul>{}</div>",
            tabs.concat(),
            panels.concat()
        )
    })
}

fn html_with(sections: &[Section], body: impl Fn(&Section) -> String) -> String {
    let contents: Vec<String> = sections
        .iter()
        .map(|Section { region, name, .. }| {
            format!("<li><a href=\"#{region}-cert\">{name} — {region}</a></li>\n")
        })
        .collect();
    let bodies: Vec<String> = sections.iter().map(body).collect();
    format!(
        "<!DOCTYPE html>\n<html><head><title>Certificates</title><!-- <h2>x — us-east-1</h2> -->\
         <script>if (1 < 2) {{ x = \"-----BEGIN CERTIFICATE-----\" }}</script></head>\n\
         <body><p>Use the <b>RSA-2048</b> kind.</p><ul>{}</ul>\n{}</body></html>",
        contents.concat(),
        bodies.join("\n")
    )
}

fn code(pem: &str) -> String {
    format!("<pre class=\"programlisting\"><code class=\"nohighlight\">{pem}</code></pre>")
}
