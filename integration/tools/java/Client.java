import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.JwtSourceOptions;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Set;

/**
 * A workload in Java: it keeps its identity with java-spiffe, and answers questions about it. Each line of its input is a
 * number and a question; each line of its output that begins with # the answer to one.
 */
public final class Client {
    private final DefaultX509Source x509;
    private final JwtSource jwt;

    private Client(String address) throws Exception {
        x509 = DefaultX509Source.newSource(new DefaultX509Source.X509SourceOptions.Builder().spiffeSocketPath(address).build());
        jwt = DefaultJwtSource.newSource(new JwtSourceOptions.Builder().spiffeSocketPath(address).build());
    }

    private String answer(String question) throws Exception {
        X509Svid svid = x509.getX509Svid();
        switch (question) {
            case "x509":
                X509SvidValidator.verifyChain(svid.getChain(), x509);
                return "x509 " + svid.getSpiffeId() + " " + svid.getLeaf().getSerialNumber();
            case "bundle":
                return "bundle " + x509.getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain()).getX509Authorities().size();
            case "jwt":
                JwtSvid fetched = jwt.fetchJwtSvid("shop");
                return "jwt " + JwtSvid.parseAndValidate(fetched.getToken(), jwt, Set.of("shop")).getSpiffeId();
            default:
                throw new IllegalArgumentException(question);
        }
    }

    public static void main(String[] args) throws Exception {
        Client client = new Client(args[0]);
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = questions.readLine()) != null; ) {
            String[] words = line.split(" ");
            String said;
            try {
                said = client.answer(words[1]);
            } catch (Exception e) {
                said = "error " + e.toString().replace('\n', ' ');
            }
            System.out.println("#" + words[0] + " " + said);
        }
        System.exit(0);
    }
}
