// Gunzip.java LAYER...: prints the SHA-256 of what java.util.zip decodes of each.
import java.io.FileInputStream;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.GZIPInputStream;

class Gunzip {
    public static void main(String[] layers) throws Exception {
        for (String layer : layers) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            try (GZIPInputStream in = new GZIPInputStream(new FileInputStream(layer))) {
                byte[] buffer = new byte[1 << 16];
                for (int n; (n = in.read(buffer)) > 0;) {
                    digest.update(buffer, 0, n);
                }
            }
            System.out.println(HexFormat.of().formatHex(digest.digest()));
        }
    }
}
