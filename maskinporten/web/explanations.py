"""What each error code means and how to mend it, in English and Norwegian bokmål."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code in one language: what it is called, what happened, what to do."""

    title: str
    meaning: str
    mend: tuple[str, ...]


EXPLANATIONS: Final[Mapping[str, Mapping[str, Explanation]]] = {
    "MP-011": {
        "en": Explanation(
            "The assertion has an invalid value",
            "A part of the JWT grant is malformed, or a claim has a value of the wrong kind.",
            (
                "Send the assertion as one line: three base64url parts and two dots.",
                "Use the algorithm RS256, RS384 or RS512, and numbers for iat and exp.",
                "The description names the claim or header that was refused.",
            ),
        ),
        "nb": Explanation(
            "Assertion har en ugyldig verdi",
            "En del av JWT-grantet er feil bygget opp, eller et claim har feil type verdi.",
            (
                "Send assertion som én linje: tre base64url-deler og to punktum.",
                "Bruk algoritmen RS256, RS384 eller RS512, og tall i iat og exp.",
                "Feilbeskrivelsen navngir claimet eller header-feltet som ble avvist.",
            ),
        ),
    },
    "MP-012": {
        "en": Explanation(
            "The grant has been used before",
            "Every grant gives at most one token. This one, or another with the same jti, is used.",
            (
                "Make a new grant with a new jti for every token request.",
                "Keep the token until shortly before it expires instead of asking again.",
            ),
        ),
        "nb": Explanation(
            "Grantet er brukt før",
            "Hvert grant gir høyst ett token. Dette, eller et annet med samme jti, er brukt.",
            (
                "Lag et nytt grant med ny jti for hver forespørsel.",
                "Ta vare på tokenet til like før det utløper i stedet for å spørre på nytt.",
            ),
        ),
    },
    "MP-100": {
        "en": Explanation(
            "The client was not found",
            "The iss claim names no active client in this environment.",
            (
                "Check that iss is the client_id, letter by letter.",
                "Check that the client is registered here: test and production are apart.",
                "A client that has been deactivated must be activated in self-service.",
            ),
        ),
        "nb": Explanation(
            "Klienten finnes ikke",
            "Claimet iss peker ikke på en aktiv klient i dette miljøet.",
            (
                "Kontroller at iss er klientens client_id, tegn for tegn.",
                "Kontroller at klienten er registrert her: test og produksjon er adskilt.",
                "En deaktivert klient må aktiveres i selvbetjeningen.",
            ),
        ),
    },
    "MP-110": {
        "en": Explanation(
            "The audience is wrong",
            "The aud claim must be this server's issuer and nothing else.",
            (
                "Copy issuer from the metadata document, with its final slash.",
                "Do not send the token endpoint's address, nor several audiences.",
            ),
        ),
        "nb": Explanation(
            "Feil mottaker i aud",
            "Claimet aud må være denne tjenestens issuer, og ikke noe annet.",
            (
                "Kopier issuer fra metadata-dokumentet, med skråstreken til slutt.",
                "Ikke send adressen til token-endepunktet, og ikke flere verdier.",
            ),
        ),
    },
    "MP-120": {
        "en": Explanation(
            "The certificate is not valid here",
            "The grant is signed with a certificate that this environment does not accept.",
            (
                "Use an enterprise certificate from an issuer that is approved in Norway.",
                "Test certificates work in test only, production certificates in production only.",
                "Check that the certificate is neither expired nor revoked.",
            ),
        ),
        "nb": Explanation(
            "Sertifikatet er ikke gyldig her",
            "Grantet er signert med et sertifikat som dette miljøet ikke godtar.",
            (
                "Bruk et virksomhetssertifikat fra en utsteder som er godkjent i Norge.",
                "Testsertifikater virker bare i test, produksjonssertifikater bare i produksjon.",
                "Kontroller at sertifikatet verken er utløpt eller tilbakekalt.",
            ),
        ),
    },
    "MP-121": {
        "en": Explanation(
            "The key has expired",
            "The registered key that signed the grant is older than its expiry allows.",
            (
                "Register a new key on the client; a key lives for a year at most.",
                "Posting the same key again renews it.",
            ),
        ),
        "nb": Explanation(
            "Nøkkelen er utløpt",
            "Den registrerte nøkkelen som signerte grantet, har passert utløpstiden sin.",
            (
                "Registrer en ny nøkkel på klienten; en nøkkel lever høyst ett år.",
                "Samme nøkkel kan fornyes ved å registrere den på nytt.",
            ),
        ),
    },
    "MP-122": {
        "en": Explanation(
            "The organisation numbers differ",
            "The certificate belongs to another organisation than the client does.",
            (
                "Sign with the certificate of the organisation that owns the client.",
                "Or register the client under the certificate's organisation number.",
            ),
        ),
        "nb": Explanation(
            "Organisasjonsnumrene er ulike",
            "Sertifikatet tilhører en annen virksomhet enn klienten.",
            (
                "Signer med sertifikatet til virksomheten som eier klienten.",
                "Eller registrer klienten på organisasjonsnummeret i sertifikatet.",
            ),
        ),
    },
    "MP-123": {
        "en": Explanation(
            "The x5c header is malformed",
            "x5c must be a JSON array of certificates in standard base64 of DER.",
            (
                "Send an array, also when there is one certificate; the leaf stands first.",
                "Leave out PEM lines such as BEGIN CERTIFICATE, and line breaks.",
            ),
        ),
        "nb": Explanation(
            "Header-feltet x5c er feil bygget opp",
            "x5c må være en JSON-liste av sertifikater i vanlig base64 av DER.",
            (
                "Send en liste også når det er ett sertifikat; virksomhetens eget står først.",
                "Ta bort PEM-linjer som BEGIN CERTIFICATE, og linjeskift.",
            ),
        ),
    },
    "MP-124": {
        "en": Explanation(
            "The signature does not hold",
            "The grant was not signed by the key that the header points to, or was changed later.",
            (
                "Check that kid names the key you sign with.",
                "Check that alg is the algorithm the key is registered for.",
            ),
        ),
        "nb": Explanation(
            "Signaturen stemmer ikke",
            "Grantet er ikke signert av nøkkelen det viser til, eller det er endret etterpå.",
            (
                "Kontroller at kid er navnet på nøkkelen du signerer med.",
                "Kontroller at alg er algoritmen nøkkelen er registrert for.",
            ),
        ),
    },
    "MP-130": {
        "en": Explanation(
            "The grant has expired",
            "The exp claim lies in the past by our clock.",
            (
                "Make the grant just before it is sent; it may live for 120 seconds.",
                "Keep the machine's clock right, with NTP.",
            ),
        ),
        "nb": Explanation(
            "Grantet er utløpt",
            "Claimet exp er passert etter vår klokke.",
            (
                "Lag grantet like før det sendes; det kan leve i 120 sekunder.",
                "Hold maskinens klokke riktig, med NTP.",
            ),
        ),
    },
    "MP-200": {
        "en": Explanation(
            "The client does not have the scope",
            "A requested scope is not registered on the client, or does not exist any more.",
            (
                "Add the scope to the client in self-service; open scopes too.",
                "Check the spelling: scopes are compared letter by letter.",
            ),
        ),
        "nb": Explanation(
            "Klienten har ikke scopet",
            "Et scope i forespørselen er ikke registrert på klienten, eller finnes ikke lenger.",
            (
                "Legg scopet til på klienten i selvbetjeningen; åpne scopes også.",
                "Kontroller skrivemåten: scopes sammenlignes tegn for tegn.",
            ),
        ),
    },
    "MP-201": {
        "en": Explanation(
            "The scope is not for this kind of client",
            "The scope's owner allows other integration types than the client's.",
            ("Use a client of an allowed type, or ask the API provider to allow this one.",),
        ),
        "nb": Explanation(
            "Scopet er ikke for denne typen klient",
            "Scopets eier tillater andre integrasjonstyper enn klientens.",
            ("Bruk en klient av tillatt type, eller be tilbyderen om å tillate denne.",),
        ),
    },
    "MP-250": {
        "en": Explanation(
            "The consumer has no access to the scope",
            "The API provider has not given the consumer's organisation number access.",
            (
                "Ask the API provider for access; it takes effect within a second.",
                "A supplier needs no access of its own: it is the customer that is given it.",
            ),
        ),
        "nb": Explanation(
            "Konsumenten har ikke tilgang til scopet",
            "Tilbyderen har ikke gitt konsumentens organisasjonsnummer tilgang.",
            (
                "Be tilbyderen om tilgang; den virker innen ett sekund.",
                "En leverandør trenger ikke egen tilgang: det er kunden som skal ha den.",
            ),
        ),
    },
    "MP-251": {
        "en": Explanation(
            "The scope is not delegated to the supplier",
            "consumer_org has not delegated the scope to this client's organisation.",
            (
                "Have the customer delegate the API in Altinn to the supplier's number.",
                "Check that the scope can be delegated at all: it has a delegation_source.",
            ),
        ),
        "nb": Explanation(
            "Scopet er ikke delegert til leverandøren",
            "consumer_org har ikke delegert scopet til virksomheten som eier klienten.",
            (
                "Be kunden delegere API-et til leverandørens organisasjonsnummer i Altinn.",
                "Kontroller at scopet kan delegeres: det må ha en delegation_source.",
            ),
        ),
    },
    "MP-301": {
        "en": Explanation(
            "The authorization_details type is unknown",
            "Only the types listed in the metadata document can be asked for.",
            ("Use a type from authorization_details_types_supported.",),
        ),
        "nb": Explanation(
            "Ukjent type i authorization_details",
            "Bare typene i metadata-dokumentet kan brukes.",
            ("Bruk en type fra authorization_details_types_supported.",),
        ),
    },
    "MP-302": {
        "en": Explanation(
            "Fields in authorization_details are unknown or malformed",
            "An element holds a member the type does not have, or a value of the wrong form.",
            ("Send exactly the documented members, one element in the array.",),
        ),
        "nb": Explanation(
            "Ukjente eller ugyldige felt i authorization_details",
            "Et element har et felt typen ikke har, eller en verdi på feil form.",
            ("Send nøyaktig de dokumenterte feltene, ett element i listen.",),
        ),
    },
    "MP-303": {
        "en": Explanation(
            "The values in authorization_details do not hold",
            "The system user or the consent was not found, not approved, or is of another party.",
            ("Check the values in Altinn; the description names what did not hold.",),
        ),
        "nb": Explanation(
            "Verdiene i authorization_details stemmer ikke",
            "Systembrukeren eller samtykket finnes ikke, er ikke godkjent, eller gjelder en annen.",
            ("Kontroller verdiene i Altinn; feilbeskrivelsen sier hva som ikke stemte.",),
        ),
    },
}
