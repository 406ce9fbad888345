"""Papers: the files that prove who is who, judged one by one and then as a server reads them."""

from datetime import datetime

from credit_server.access import FileUnusable, open_tls
from credit_server.doctor.certificates import check_certificate, check_client_authority
from credit_server.doctor.finding import Finding, Verdict, fails
from credit_server.doctor.identities import check_identities
from credit_server.doctor.permissions import readable_by_others
from credit_server.doctor.token_keys import check_token_keys
from credit_server.settings import AccessSettings


def check_papers(settings: AccessSettings, *, now: datetime) -> list[Finding]:
    """Judge the files of TLS, token keys and identities that settings name.

    Args:
        settings: Those of the server.
        now: The time, with its zone.
    """
    findings: list[Finding] = []
    if settings.tls_certificate is not None and settings.tls_key is not None:
        findings.extend(check_certificate(settings.tls_certificate, settings.tls_key, now=now))
    if settings.tls_client_ca is not None:
        findings.extend(check_client_authority(settings.tls_client_ca, now=now))
    if settings.token_keys is not None:
        findings.extend(check_token_keys(settings.token_keys, settings.token_algorithms))
    if settings.identities_file is not None:
        findings.append(check_identities(settings.identities_file))
    if not any(finding.verdict is Verdict.FAILS for finding in findings):
        findings.extend(_check_as_server(settings))
    return findings


def _check_as_server(settings: AccessSettings) -> list[Finding]:
    """Open TLS as a server does when it starts: it rejects more than is looked for above."""
    findings = []
    try:
        open_tls(settings.tls_files)
    except FileUnusable as error:
        findings.append(fails("TLS", str(error), "correct it: no server starts with it"))
    password = settings.tls_key_password_file
    if password is not None and not findings:
        exposed = readable_by_others(password, "TLS key password")
        findings.extend([] if exposed is None else [exposed])
    return findings
