#!/bin/sh
# Writes the keystores of this folder with the JDK's keytool (17) and openssl (3.0). They are for tests only and hold no
# secret: every password is "changeit". Run it here if a format has to be added; tests read the files, never this script.
set -eu
cd "$(dirname "$0")"
# The lowest iteration count there is, as -race makes each one slow; rsa.jceks has the JDK's own, 200,000.
fast=-J-Djdk.jceks.iterationCount=10000
rm -f ./*.jks ./*.jceks ./*.p12 ./*.pem ./*.der
new() { # FILE TYPE ALIAS KEYALG EXTRA...
	file=$1 type=$2 alias=$3 alg=$4
	shift 4
	keytool $fast -genkeypair -keystore "$file" -storetype "$type" -storepass changeit -keypass "${KEYPASS:-changeit}" -alias "$alias" \
		-keyalg "$alg" "$@" -dname "CN=$alias" -ext "san=uri:spiffe://one.test/$alias" -validity 36500 2>/dev/null
}
new ec.jceks JCEKS ec EC -groupname secp256r1
fast=-J-Dslow new rsa.jceks JCEKS rsa RSA -keysize 2048
new ed25519.jceks JCEKS ed25519 Ed25519
new ec.jks JKS ec EC -groupname secp256r1
new ec.p12 PKCS12 ec EC -groupname secp256r1
new rsa.p12 PKCS12 rsa RSA -keysize 2048

# A chain: the leaf's entry holds its issuer too, and the issuer is trusted by an entry of its own.
new ca.jceks JCEKS ca EC -groupname secp256r1 -ext bc:c
new chain.jceks JCEKS leaf EC -groupname secp256r1
keytool -certreq -keystore chain.jceks -storepass changeit -alias leaf 2>/dev/null |
	keytool -gencert -keystore ca.jceks -storepass changeit -alias ca -rfc -validity 36500 2>/dev/null >leaf.pem
keytool -exportcert -keystore ca.jceks -storepass changeit -alias ca -rfc 2>/dev/null >ca.pem
keytool $fast -importcert -noprompt -keystore chain.jceks -storepass changeit -alias ca -file ca.pem 2>/dev/null
keytool $fast -importcert -noprompt -keystore chain.jceks -storepass changeit -alias leaf -file leaf.pem 2>/dev/null
rm ca.jceks leaf.pem

# What can't be read.
KEYPASS=different new keypass.jceks JCEKS ec EC -groupname secp256r1
new two.jceks JCEKS one EC -groupname secp256r1
new two.jceks JCEKS two EC -groupname secp256r1
keytool -importcert -noprompt -keystore none.jceks -storetype JCEKS -storepass changeit -alias ca -file ca.pem 2>/dev/null
new secret.jceks JCEKS ec EC -groupname secp256r1
keytool -genseckey -keystore secret.jceks -storetype JCEKS -storepass changeit -alias aes -keyalg AES -keysize 128 2>/dev/null

# As PEM, in each of the forms that openssl writes.
for alg in ec rsa; do
	openssl pkcs12 -in $alg.p12 -passin pass:changeit -nodes -out $alg.pem 2>/dev/null
	openssl pkey -in $alg.pem -traditional -out $alg-traditional.pem
done
openssl pkey -in ec.pem -aes128 -passout pass:changeit -out encrypted.pem
openssl pkey -in ec.pem -traditional -aes128 -passout pass:changeit -out encrypted-traditional.pem
openssl crl2pkcs7 -nocrl -certfile ca.pem -out ca.p7b.pem
openssl x509 -in ca.pem -outform DER -out ca.der
openssl pkcs12 -export -legacy -in ec.pem -passout pass:changeit -out legacy.p12
