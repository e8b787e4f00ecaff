"""A workload in Python: it keeps its identity with the client spiffe (py-spiffe), and answers questions about it.

Each line of its input is a number and a question; each line of its output that begins with # the answer to one.
"""
import sys

from spiffe import JwtSource, JwtSvid, X509Source


def x509(source):
    context = source.get_x509_context()
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    for authority in bundle.x509_authorities:
        try:
            svid.leaf.verify_directly_issued_by(authority)
            break
        except Exception:
            continue
    else:
        raise ValueError("no authority of the bundle issued the SVID")
    return f"x509 {svid.spiffe_id} {svid.leaf.serial_number}"


def bundle(source):
    context = source.get_x509_context()
    domain = context.default_svid.spiffe_id.trust_domain
    return f"bundle {len(context.x509_bundle_set.get_bundle_for_trust_domain(domain).x509_authorities)}"


def jwt(source):
    svid = source.fetch_svid({"shop"}, timeout=5)
    valid = JwtSvid.parse_and_validate(svid.token, source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain), {"shop"})
    return f"jwt {valid.spiffe_id}"


def main():
    sources = X509Source(socket_path=sys.argv[1]), JwtSource(socket_path=sys.argv[1])
    answers = {"x509": (x509, sources[0]), "bundle": (bundle, sources[0]), "jwt": (jwt, sources[1])}
    for line in sys.stdin:
        number, question = line.split()
        answer, source = answers[question]
        try:
            said = answer(source)
        except Exception as error:
            said = f"error {type(error).__name__}: {error}".replace("\n", " ")
        print(f"#{number} {said}", flush=True)


main()
