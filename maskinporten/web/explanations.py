"""What each public code means and how it is mended, in English and in Norwegian bokmål.

What goes over the wire (error, status, description) stands in `maskinporten.errors.Reason` and is
not repeated here. In the prose, `backticks` mark what is typed, never what is said.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

Language = Literal["en", "nb"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "nb")


class Party(Enum):
    """Who can mend it; the value is the key in JSON."""

    CONSUMER = "consumer"
    SUPPLIER = "supplier"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code in one language."""

    code: str
    title: str
    meaning: str
    causes: tuple[str, ...]
    mend: tuple[str, ...]

    def __str__(self) -> str:
        """Plain text, for a terminal or a log."""
        causes = "".join(f"\n? {cause}" for cause in self.causes)
        steps = "".join(f"\n> {step}" for step in self.mend)
        return f"{self.code}: {self.title}\n{self.meaning}\n{causes}\n{steps}"


# Each pair is English, then bokmål. One line for each cause and each step.
# fmt: off
_PROSE: Final[tuple[tuple[Explanation, Explanation], ...]] = (
    (Explanation("MP-011", "The assertion cannot be read, or holds a value that is not allowed",
        "The server took the JWT apart and met something it cannot use: the text itself, a header "
        "member or a claim. The end of `error_description` names what it was.",
        ("The assertion holds line breaks or spaces, or is not three parts with dots between.",
         "`alg` is not `RS256`, `RS384` or `RS512`; `PS256`, `ES256` and `none` are refused.",
         "A claim is missing or of the wrong type, such as `exp` as text.",
         "The header brings a member that is refused here, such as `jwk`, `jku` or `crit`."),
        ("Decode the very text you send, and correct the member or claim that is named.",
         "Write `iat` and `exp` as JSON numbers: seconds since 1970, UTC.")),
     Explanation("MP-011", "JWT-en kan ikke leses, eller har en verdi som ikke er tillatt",
        "Serveren tok JWT-en fra hverandre og fant noe den ikke kan bruke: selve teksten, et felt "
        "i headeren eller et claim. Slutten av `error_description` sier hva det var.",
        ("Teksten har linjeskift eller mellomrom, eller er ikke tre deler med punktum mellom.",
         "`alg` er ikke `RS256`, `RS384` eller `RS512`; `PS256`, `ES256` og `none` blir avvist.",
         "Et claim mangler eller har feil type, for eksempel `exp` som tekst.",
         "Headeren har et felt som avvises her, for eksempel `jwk`, `jku` eller `crit`."),
        ("Dekod nøyaktig den teksten dere sender, og rett feltet eller claimet som er nevnt.",
         "Skriv `iat` og `exp` som JSON-tall: sekunder siden 1970, UTC."))),
    (Explanation("MP-012", "The grant has been used before",
        "A JWT grant is good for one answer. One with the same `jti`, or without `jti` one with "
        "the same content, has already come from this client.",
        ("A retry sent the same JWT again after the first answer was lost.",
         "`jti` is constant, or several processes make the same ones.",
         "The JWT is kept and reused instead of the access token."),
        ("Sign a new JWT with a fresh random `jti` for each request, retries included.",
         "Keep the access token and use it until shortly before `expires_in` has passed.")),
     Explanation("MP-012", "JWT-en er brukt før",
        "En JWT kan brukes til ett svar. En med samme `jti`, eller uten `jti` en med samme "
        "innhold, er allerede kommet fra denne klienten.",
        ("Et nytt forsøk sendte samme JWT igjen etter at det første svaret gikk tapt.",
         "`jti` er konstant, eller flere prosesser lager de samme verdiene.",
         "JWT-en blir tatt vare på og gjenbrukt i stedet for tokenet."),
        ("Signer en ny JWT med ny, tilfeldig `jti` for hvert kall, også når dere prøver på nytt.",
         "Ta vare på tokenet og bruk det til like før `expires_in` er utløpt."))),
    (Explanation("MP-100", "The client was not found",
        "`iss` names no active client that may ask this server for machine-to-machine tokens.",
        ("`iss` is an organisation number or a name instead of the `client_id`, or is misspelt.",
         "The client is registered in another environment than the one you called.",
         "The client is deactivated, or its `integration_type` is made for logging in people."),
        ("Copy the `client_id` from self-service in the environment whose endpoint you call.",
         "If it is deactivated: `PUT /clients/{client_id}` with `active` set to `true`.")),
     Explanation("MP-100", "Klienten finnes ikke",
        "`iss` viser ikke til noen aktiv klient som kan be denne serveren om token.",
        ("`iss` er et organisasjonsnummer eller et navn, ikke `client_id`, eller er feilstavet.",
         "Klienten er registrert i et annet miljø enn det dere kalte.",
         "Klienten er deaktivert, eller har en `integration_type` som gjelder innlogging."),
        ("Kopier `client_id` fra selvbetjening i det miljøet dere henter token fra.",
         "Er klienten deaktivert: `PUT /clients/{client_id}` med `active` satt til `true`."))),
    (Explanation("MP-110", "The grant is addressed to somebody else",
        "`aud` must be this server's issuer, character by character, and nothing besides.",
        ("The slash at the end is missing, or there is one too many.",
         "`aud` is the address of the token endpoint or of the API you are going to call.",
         "The environments are mixed, or `aud` is an array of several values."),
        ("Take the value from `issuer` in `/.well-known/oauth-authorization-server`.",
         "Name the API in `resource`, if its provider wants it in the token; never in `aud`.")),
     Explanation("MP-110", "JWT-en er adressert til noen andre",
        "`aud` må være issuer-verdien til denne serveren, tegn for tegn, og ikke noe mer.",
        ("Skråstreken til slutt mangler, eller det er én for mye.",
         "`aud` er adressen til token-endepunktet eller til API-et dere skal kalle.",
         "Miljøene er blandet, eller `aud` er en liste med flere verdier."),
        ("Hent verdien fra `issuer` i `/.well-known/oauth-authorization-server`.",
         "Oppgi API-et i `resource` dersom tilbyderen vil ha det i tokenet, aldri i `aud`."))),
    (Explanation("MP-120", "The certificate is not accepted",
        "The JWT came with a certificate in `x5c` that this server does not trust: it must be a "
        "valid Norwegian enterprise certificate for this very environment.",
        ("The certificate has expired, is not yet valid, or has been revoked.",
         "It is a test certificate in production, or a production certificate in test.",
         "It is self-signed, is for a web server, or comes from an issuer that is not approved."),
        ("Look at dates and issuer with `openssl x509 -in cert.pem -noout -dates -issuer`.",
         "Order or install a valid enterprise certificate for the environment, and sign with it.")),
     Explanation("MP-120", "Sertifikatet blir ikke godtatt",
        "JWT-en kom med et sertifikat i `x5c` som denne serveren ikke stoler på. Det må være et "
        "gyldig virksomhetssertifikat for akkurat dette miljøet.",
        ("Sertifikatet er utløpt, ikke gyldig ennå eller trukket tilbake.",
         "Det er et testsertifikat i produksjon eller et produksjonssertifikat i test.",
         "Det er selvsignert, gjelder en webserver eller har en utsteder som ikke er godkjent."),
        ("Se på datoer og utsteder med `openssl x509 -in cert.pem -noout -dates -issuer`.",
         "Skaff et gyldig virksomhetssertifikat for miljøet, og signer med det."))),
    (Explanation("MP-121", "The registered key has expired",
        "`kid` names a key that is registered on the client, but its `exp` has passed. A "
        "registered key is good for one year at the most.",
        ("Nobody replaced the key in time.",
         "A new key is registered, but the program still signs with the old one and its `kid`."),
        ("Make a new key pair and register the public half: `POST /clients/{client_id}/jwks`.",
         "That call replaces the whole set, so include other keys that are still in use.",
         "Sign with the new private key and put its `kid` in the header of the JWT.")),
     Explanation("MP-121", "Den registrerte nøkkelen er utløpt",
        "`kid` viser til en nøkkel som er registrert på klienten, men tidspunktet i `exp` er "
        "passert. En registrert nøkkel er gyldig i høyst ett år.",
        ("Ingen byttet nøkkelen i tide.",
         "En ny nøkkel er registrert, men programmet signerer ennå med den gamle og dens `kid`."),
        ("Lag nytt nøkkelpar og registrer den offentlige delen: `POST /clients/{client_id}/jwks`.",
         "Kallet erstatter hele settet, så ta med andre nøkler som fortsatt er i bruk.",
         "Signer med den nye private nøkkelen, og sett dens `kid` i headeren til JWT-en."))),
    (Explanation("MP-122", "The certificate belongs to another organisation than the client",
        "The organisation number in the certificate is not the one the client is registered for.",
        ("A supplier signs with its own certificate for a client that is its customer's.",
         "The certificate is the parent company's or a sub-unit's, or dates from before a merger.",
         "The JWT has the `client_id` of one customer and the certificate of another."),
        ("Compare the number in the certificate's subject with `client_orgno` of the client.",
         "Sign with a certificate of that organisation, or register a key on the client instead.",
         "As a supplier: use your own client, and name the customer in `consumer_org`.")),
     Explanation("MP-122", "Sertifikatet tilhører en annen virksomhet enn klienten",
        "Organisasjonsnummeret i sertifikatet er ikke det klienten er registrert på.",
        ("En leverandør signerer med sitt eget sertifikat for en klient som er kundens.",
         "Sertifikatet er morselskapets eller en underenhets, eller fra før en fusjon.",
         "JWT-en har én kundes `client_id` og en annen kundes sertifikat."),
        ("Sammenlign nummeret i sertifikatets subject med `client_orgno` på klienten.",
         "Signer med et sertifikat for den virksomheten, eller registrer en nøkkel på klienten.",
         "Som leverandør: bruk deres egen klient, og oppgi kunden i `consumer_org`."))),
    (Explanation("MP-123", "The header x5c is not a list of certificates",
        "`x5c` must be an array of strings, each one certificate as DER in ordinary base64, with "
        "the certificate that signed the JWT first.",
        ("The certificate stands there as a plain string instead of in an array.",
         "It is PEM with its BEGIN and END lines, has line breaks, or is base64url.",
         "The order is wrong, so that the first certificate is not the one that signed."),
        ("Take the text between the first and last line of the PEM file, without line breaks.",
         "Put it in an array, the certificate that signs first, and its issuers after it.")),
     Explanation("MP-123", "Headeren x5c er ikke en liste med sertifikater",
        "`x5c` må være en liste med strenger, hver med ett sertifikat som DER i vanlig base64, og "
        "med sertifikatet som signerte JWT-en først.",
        ("Sertifikatet står som en enkel streng i stedet for i en liste.",
         "Det er PEM med BEGIN- og END-linjer, har linjeskift eller er base64url.",
         "Rekkefølgen er feil, så det første sertifikatet ikke er det som signerte."),
        ("Ta teksten mellom første og siste linje i PEM-filen, uten linjeskift.",
         "Legg den i en liste, med sertifikatet som signerer først og utstederne etter."))),
    (Explanation("MP-124", "The signature does not match",
        "The key that the header names did not sign this JWT in this form.",
        ("The private key is not the other half of the key in `kid` or `x5c`.",
         "`alg` differs from the algorithm the key was registered with.",
         "Header or claims were changed, or written as JSON anew, after the signing."),
        ("Verify the JWT yourself with the public key that is registered under its `kid`.",
         "After a change of keys: check that private key and `kid` were changed together.")),
     Explanation("MP-124", "Signaturen stemmer ikke",
        "Nøkkelen som headeren viser til, har ikke signert JWT-en slik den er nå.",
        ("Den private nøkkelen hører ikke sammen med nøkkelen i `kid` eller `x5c`.",
         "`alg` er en annen enn algoritmen nøkkelen ble registrert med.",
         "Headeren eller innholdet ble endret, eller skrevet som JSON på nytt, etter signeringen."),
        ("Verifiser JWT-en selv med den offentlige nøkkelen som er registrert med denne `kid`.",
         "Etter et nøkkelbytte: sjekk at privat nøkkel og `kid` ble byttet samtidig."))),
    (Explanation("MP-130", "The grant has expired",
        "By this server's clock, the time in `exp` had passed when the JWT arrived.",
        ("The JWT was made too early, waited in a queue, or was kept for later.",
         "The clock of your machine is slow.",
         "`exp` was reckoned from local time instead of UTC."),
        ("Sign right before you send: `iat` is now, `exp` at most 120 seconds later.",
         "Let the machine set its clock from the network (NTP).")),
     Explanation("MP-130", "JWT-en er utløpt",
        "Etter serverens klokke var tidspunktet i `exp` passert da JWT-en kom fram.",
        ("JWT-en ble laget for tidlig, lå i kø eller ble tatt vare på til senere.",
         "Klokken på maskinen deres går for sakte.",
         "`exp` er regnet ut fra lokal tid i stedet for UTC."),
        ("Signer rett før dere sender: `iat` er nå, `exp` høyst 120 sekunder senere.",
         "La maskinen stille klokken fra nettet (NTP)."))),
    (Explanation("MP-200", "A scope is malformed or is not on the client",
        "Every scope in the JWT must be written correctly, exist, be active and be registered on "
        "the client. A single one that fails stops the whole request.",
        ("The scope was never added to the client, or is misspelt there or in the JWT.",
         "Its provider has deactivated the scope, or it exists only in another environment.",
         "Several scopes are separated by something else than a space, or `scope` is empty."),
        ("Add the scope to the client: `PUT /clients/{client_id}` with the full list in `scopes`.",
         "Compare letter by letter; there are no wildcards, and `.write` does not cover `.read`.")),
     Explanation("MP-200", "Et scope er feil skrevet eller står ikke på klienten",
        "Alle scopes i JWT-en må være rett skrevet, finnes, være aktive og være registrert på "
        "klienten. Er det feil ved ett av dem, blir hele forespørselen avvist.",
        ("Scopet er aldri lagt til på klienten, eller er feilstavet der eller i JWT-en.",
         "Tilbyderen har deaktivert scopet, eller det finnes bare i et annet miljø.",
         "Flere scopes er skilt med noe annet enn mellomrom, eller `scope` er tom."),
        ("Legg scopet til på klienten: `PUT /clients/{client_id}` med hele listen i `scopes`.",
         "Sammenlign tegn for tegn; jokertegn finnes ikke, og `.write` omfatter ikke `.read`."))),
    (Explanation("MP-201", "The scope is not meant for this kind of client",
        "The provider has limited the scope to certain kinds of client, and the client's "
        "`integration_type` is not among them.",
        ("The scope is for logging in people, and was asked for without a person.",
         "The provider forgot a kind when it set up `allowed_integration_types`."),
        ("Ask the provider which scope machine-to-machine clients shall use.",
         "The provider adds the kind: `PUT /scopes?scope=...` with `allowed_integration_types`.",
         "The kind of a client cannot be changed; register a new client if it is wrong.")),
     Explanation("MP-201", "Scopet er ikke ment for denne typen klient",
        "Tilbyderen har begrenset scopet til bestemte typer klienter, og klientens "
        "`integration_type` er ikke blant dem.",
        ("Scopet gjelder innlogging av personer, men ble bedt om uten noen person.",
         "Tilbyderen glemte en type da `allowed_integration_types` ble satt."),
        ("Spør tilbyderen hvilket scope maskin-til-maskin-klienter skal bruke.",
         "Tilbyderen legger til typen: `PUT /scopes?scope=...` med `allowed_integration_types`.",
         "Typen til en klient kan ikke endres; registrer en ny klient hvis den er feil."))),
    (Explanation("MP-250", "The organisation has not been granted access to the scope",
        "The scope is on the client, but its provider has not opened it for the consumer: the "
        "client's own organisation, or the one in `consumer_org`.",
        ("Access was never granted, was withdrawn, or was granted in another environment only.",
         "It was granted to another organisation number, such as the supplier's or a sub-unit's."),
        ("Send the provider the scope, the consumer's organisation number and the environment.",
         "The provider grants it: `PUT /scopes/access/{consumer_orgno}?scope=...`.",
         "As a supplier: it is the customer, not you, who must have been granted access.")),
     Explanation("MP-250", "Virksomheten har ikke fått tilgang til scopet",
        "Scopet står på klienten, men tilbyderen har ikke åpnet det for konsumenten: klientens "
        "egen virksomhet, eller den som er oppgitt i `consumer_org`.",
        ("Tilgangen er aldri gitt, er trukket tilbake eller er bare gitt i et annet miljø.",
         "Den er gitt til et annet organisasjonsnummer, som leverandørens eller en underenhets."),
        ("Send tilbyderen scopet, konsumentens organisasjonsnummer og hvilket miljø det gjelder.",
         "Tilbyderen gir tilgang: `PUT /scopes/access/{consumer_orgno}?scope=...`.",
         "Som leverandør: det er kunden, ikke dere, som må ha fått tilgang."))),
    (Explanation("MP-251", "The access has not been delegated to the supplier",
        "The JWT asks on behalf of the organisation in `consumer_org`, and no delegation of the "
        "scope from it to the client's organisation was found.",
        ("The customer has not delegated the API in Altinn, or has withdrawn the delegation.",
         "It was delegated to another organisation number, or in another environment.",
         "The scope cannot be delegated, or is asked for with one that is delegated elsewhere."),
        ("The customer delegates the API to the supplier's organisation number in Altinn.",
         "The provider must have set `delegation_source` on the scope.",
         "If you act for yourself, leave `consumer_org` out.")),
     Explanation("MP-251", "Tilgangen er ikke delegert til leverandøren",
        "JWT-en ber om token på vegne av virksomheten i `consumer_org`, men den har ikke delegert "
        "scopet til klientens virksomhet.",
        ("Kunden har ikke delegert API-et i Altinn, eller har trukket delegeringen tilbake.",
         "Det er delegert til et annet organisasjonsnummer eller i et annet miljø.",
         "Scopet kan ikke delegeres, eller kreves sammen med et som delegeres et annet sted."),
        ("Kunden delegerer API-et til leverandørens organisasjonsnummer i Altinn.",
         "Tilbyderen må ha satt `delegation_source` på scopet.",
         "Opptrer dere på egne vegne, skal `consumer_org` ikke være med."))),
    (Explanation("MP-301", "The type in authorization_details is unknown",
        "An element of `authorization_details` names a `type` that this server does not serve.",
        ("`type` is misspelt or missing.",
         "This server, or this environment, does not offer that type."),
        ("Choose from `authorization_details_types_supported` in the server's metadata.",
         "Leave the claim out if the API needs no system user and no consent.")),
     Explanation("MP-301", "Typen i authorization_details er ukjent",
        "Et element i `authorization_details` har en `type` som denne serveren ikke støtter.",
        ("`type` er feilstavet eller mangler.",
         "Denne serveren, eller dette miljøet, tilbyr ikke typen."),
        ("Velg fra `authorization_details_types_supported` i serverens metadata.",
         "Utelat claimet dersom API-et verken krever systembruker eller samtykke."))),
    (Explanation("MP-302", "authorization_details has unknown or malformed fields",
        "The type is known, but a field does not belong to it, is missing, or has a wrong form.",
        ("`authorization_details` is a single object instead of an array.",
         "A field is misspelt, or one was added that the type does not have.",
         "`externalRef` has other characters than letters, digits, `_` and `-`, or is too long."),
        ("Follow the example, and remove every field that the type does not define.",
         "Write the organisation as `0192:` and nine digits.")),
     Explanation("MP-302", "authorization_details har ukjente eller feil utformede felter",
        "Typen er kjent, men et felt hører ikke til den, mangler eller har feil form.",
        ("`authorization_details` er ett enkelt objekt i stedet for en liste.",
         "Et felt er feilstavet, eller det er lagt til et felt som typen ikke har.",
         "`externalRef` har andre tegn enn bokstaver, tall, `_` og `-`, eller er for lang."),
        ("Følg eksempelet, og fjern alle felter som typen ikke definerer.",
         "Skriv virksomheten som `0192:` og ni siffer."))),
    (Explanation("MP-303", "The values in authorization_details do not hold",
        "The form is right, but Altinn knows no system user or consent that fits the values.",
        ("The customer has not approved the system user, or has deleted it.",
         "The `client_id` is not registered on the system, or `externalRef` is a different one.",
         "The consent is not given, has expired, is withdrawn, or is between other parties."),
        ("Let the customer approve the system user, or the person the consent, in Altinn.",
         "As a supplier: add the `client_id` to your system in Altinn's system register.",
         "Send the `externalRef` that the system user was created with, or leave it out.")),
     Explanation("MP-303", "Verdiene i authorization_details stemmer ikke",
        "Formen er riktig, men Altinn har ingen systembruker og ikke noe samtykke som passer.",
        ("Kunden har ikke godkjent systembrukeren, eller har slettet den.",
         "`client_id` er ikke registrert på systemet, eller `externalRef` er en annen.",
         "Samtykket er ikke gitt, er utløpt, er trukket tilbake eller gjelder andre parter."),
        ("La kunden godkjenne systembrukeren, eller personen samtykket, i Altinn.",
         "Som leverandør: legg `client_id` til på systemet deres i Altinns systemregister.",
         "Send samme `externalRef` som da systembrukeren ble laget, eller utelat den."))),
)

_SYSTEM_USER = """\
{"authorization_details": [{"type": "urn:altinn:systemuser", "systemuser_org":
    {"authority": "iso6523-actorid-upis", "ID": "0192:910753614"}, "externalRef": "payroll_1"}]}"""
_EXAMPLES: Final = {
    "MP-011": """\
{"alg": "RS256", "kid": "my-key-2"}
{"aud": "https://maskinporten.example/", "iss": "CLIENT_ID", "scope": "prefix:name.read",
 "iat": 1760000000, "exp": 1760000100, "jti": "4b0c1f5e-6d3a-4e0c-9a57-0d6a4a0f2b1e"}""",
    "MP-012": '{"jti": "4b0c1f5e-6d3a-4e0c-9a57-0d6a4a0f2b1e"}',
    "MP-100": '{"iss": "044f5040-7b1e-4c8e-8f0a-3f6f5b0c9d21"}',
    "MP-110": '{"aud": "https://maskinporten.example/"}',
    "MP-120": '{"alg": "RS256", "x5c": ["MIIGHTCCBAWgAwIBAgI..."]}',
    "MP-121": """\
POST /clients/CLIENT_ID/jwks
{"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "my-key-2", "e": "AQAB",
           "n": "u1W7..."}]}""",
    "MP-122": '{"iss": "CLIENT_ID", "consumer_org": "910753614"}',
    "MP-123": '{"alg": "RS256", "x5c": ["MIIGHTCCBAWgAwIBAgI...", "MIIFDzCCAvegAwIBAgI..."]}',
    "MP-124": '{"alg": "RS256", "kid": "my-key-2"}',
    "MP-130": '{"iat": 1760000000, "exp": 1760000100}',
    "MP-200": '{"scope": "prefix:first.read prefix:second.write"}',
    "MP-201": '{"allowed_integration_types": ["maskinporten"]}',
    "MP-250": "PUT /scopes/access/910753614?scope=prefix:name.read",
    "MP-251": '{"consumer_org": "910753614", "scope": "prefix:name.read"}',
    "MP-301": '{"authorization_details": [{"type": "urn:altinn:systemuser", "...": "..."}]}',
    "MP-302": _SYSTEM_USER,
    "MP-303": _SYSTEM_USER,
}
# fmt: on

# Most refusals are mended where the client is run: by the consumer, or by a supplier for it.
_CLIENT_SIDE: Final = (Party.CONSUMER, Party.SUPPLIER)
_OTHERS: Final = {
    "MP-201": (Party.PROVIDER, Party.CONSUMER, Party.SUPPLIER),
    "MP-250": (Party.PROVIDER,),
    "MP-251": (Party.CONSUMER, Party.PROVIDER, Party.SUPPLIER),
}

CODES: Final = tuple(english.code for english, _ in _PROSE)
_BY_CODE: Final = {
    (one.code, language): one
    for pair in _PROSE
    for language, one in zip(LANGUAGES, pair, strict=True)
}


def explanation(code: str, lang: Language) -> Explanation:
    """The code, in capitals or not, in that language; `str` of it is plain text. KeyError: none."""
    return _BY_CODE[code.upper(), lang]


def example(code: str) -> str:
    """What is right, as it is sent; the same in every language."""
    return _EXAMPLES[code]


def menders(code: str) -> tuple[Party, ...]:
    """Who can mend it, the likeliest first."""
    return _OTHERS.get(code, _CLIENT_SIDE)
