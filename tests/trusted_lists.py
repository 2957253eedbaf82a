"""Signed trusted lists, right in every way but the one named."""

import base64
import datetime as dt
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm
from signxml.xades.xades import XAdESSigner

from maskinporten import pki
from maskinporten.pki import DAY, Issued
from tests.chains import YEAR
from tests.seals import eu_issuing
from tests.world import NOW, private_key

TSL: Final = "http://uri.etsi.org/02231/v2#"
DSIG: Final = "{http://www.w3.org/2000/09/xmldsig#}"
TYPES: Final = "http://uri.etsi.org/TrstSvc/Svctype/"
STATUS: Final = "http://uri.etsi.org/TrstSvc/TrustedList/Svcstatus/"
USE: Final = "http://uri.etsi.org/TrstSvc/TrustedList/SvcInfoExt/"


@cache
def operator(name: str = "operator", *, since: int = NOW - YEAR, until: int = NOW + YEAR) -> Issued:
    """A scheme operator's own certificate, which signs its list."""
    key = private_key(name)
    subject = pki.ca_name(name)
    extensions = [(pki.key_usage("digital_signature"), True)]
    return Issued(pki.certify(subject, key, (subject, key), (since, until), extensions), key)


def written(at: int) -> str:
    """As the lists write a time."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Service:
    """One service of a list; a granted one that issues qualified seals until told else."""

    certificate: x509.Certificate = field(default_factory=lambda: eu_issuing().certificate)
    kind: str = TYPES + "CA/QC"
    status: str = STATUS + "granted"
    since: int = NOW - DAY
    use: str = USE + "ForeSeals"
    octets: bytes | None = None

    def xml(self) -> str:
        """TSPService."""
        der = self.octets or self.certificate.public_bytes(Encoding.DER)
        return f"""<TSPService><ServiceInformation>
<ServiceTypeIdentifier>{self.kind}</ServiceTypeIdentifier>
<ServiceName><Name xml:lang="en">Seals</Name></ServiceName>
<ServiceDigitalIdentity><DigitalId><X509Certificate>{base64.b64encode(der).decode()}
</X509Certificate></DigitalId></ServiceDigitalIdentity>
<ServiceStatus>{self.status}</ServiceStatus>
<StatusStartingTime>{written(self.since)}</StatusStartingTime>
<ServiceInformationExtensions><Extension Critical="true"><AdditionalServiceInformation>
<URI xml:lang="en">{self.use}</URI></AdditionalServiceInformation></Extension>
</ServiceInformationExtensions></ServiceInformation></TSPService>"""


@dataclass(frozen=True)
class ListOf:
    """A list with one thing wrong; every field has its right value until it is named."""

    services: tuple[Service, ...] = (Service(),)
    territory: str = "DE"
    sequence: str = "7"
    issued: str = written(NOW - DAY)
    next_update: str = f"<dateTime>{written(NOW + DAY)}</dateTime>"
    name: str = "Operator"

    def xml(self) -> str:
        """TrustServiceStatusList, unsigned."""
        return f"""<TrustServiceStatusList xmlns="{TSL}" Id="list"
 TSLTag="http://uri.etsi.org/19612/TSLTag">
<SchemeInformation><TSLVersionIdentifier>5</TSLVersionIdentifier>
<TSLSequenceNumber>{self.sequence}</TSLSequenceNumber>
<TSLType>http://uri.etsi.org/TrstSvc/TrustedList/TSLType/EUgeneric</TSLType>
<SchemeOperatorName><Name xml:lang="en">{escape(self.name)}</Name></SchemeOperatorName>
<SchemeTerritory>{self.territory}</SchemeTerritory>
<ListIssueDateTime>{self.issued}</ListIssueDateTime>
<NextUpdate>{self.next_update}</NextUpdate></SchemeInformation>
<TrustServiceProviderList><TrustServiceProvider><TSPServices>
{"".join(service.xml() for service in self.services)}
</TSPServices></TrustServiceProvider></TrustServiceProviderList></TrustServiceStatusList>"""


class Signer(XAdESSigner):
    """Names the canonical form of each reference, as scheme operators do; the library does not."""

    def _add_reference_to_signed_info(
        self, sig_root: Any, node_to_reference: Any, **attrs: Any
    ) -> None:
        super()._add_reference_to_signed_info(sig_root, node_to_reference, **attrs)  # type: ignore[no-untyped-call]
        reference = sig_root.find(f"{DSIG}SignedInfo")[-1]
        transforms = etree.Element(f"{DSIG}Transforms")
        etree.SubElement(transforms, f"{DSIG}Transform", Algorithm=self.c14n_alg.value)
        reference.insert(0, transforms)


def sign_xml(xml: str, by: Issued | None = None, **options: Any) -> bytes:
    """Enveloped XAdES, as scheme operators sign."""
    signer = Signer(
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
        **{"digest_algorithm": DigestAlgorithm.SHA256, **options},
    )
    by = by or operator()
    key: rsa.RSAPrivateKey = by.key
    signed = signer.sign(etree.fromstring(xml.encode()), key=key, cert=[by.certificate])
    octets: bytes = etree.tostring(signed, encoding="UTF-8", xml_declaration=True)
    return octets


def signed_list(of: ListOf | None = None, by: Issued | None = None, **options: Any) -> bytes:
    """The list of that description, signed."""
    return sign_xml((of or ListOf()).xml(), by, **options)
