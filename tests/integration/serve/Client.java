import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpClient.Version;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.zip.GZIPOutputStream;

/**
 * Sends requests with the options of Java's HttpClient; prints the case, status and body of each response.
 *
 * No request with expectContinue is refused, because Java before 17.0.17 would wait forever (JDK-8286171).
 */
class Client {
    public static void main(String[] args) throws Exception {
        var model = args[0];
        byte[] body = args[1].getBytes(), large = new byte[2_000_000];
        var zipped = new ByteArrayOutputStream();
        try (var stream = new GZIPOutputStream(zipped)) {
            stream.write(body);
        }
        for (var version : List.of(Version.HTTP_2, Version.HTTP_1_1)) { // HTTP/2 is the default
            var client = HttpClient.newBuilder().version(version).build();
            var predict = HttpRequest.newBuilder(URI.create(model + ":predict"));
            send(client, version + " length", predict.copy().POST(BodyPublishers.ofByteArray(body)));
            send(client, version + " chunked", predict.copy().POST(streamed(body)));
            send(client, version + " gzip", predict.copy().header("Content-Encoding", "gzip")
                .POST(BodyPublishers.ofByteArray(zipped.toByteArray())));
            send(client, version + " expect", predict.copy().expectContinue(true)
                .POST(BodyPublishers.ofByteArray(body)));
            send(client, version + " large", predict.copy().POST(BodyPublishers.ofByteArray(large)));
            send(client, version + " large chunked", predict.copy().POST(streamed(large)));
            send(client, version + " unknown", HttpRequest.newBuilder(URI.create(model + "s:predict"))
                .POST(BodyPublishers.ofByteArray(large)));
            send(client, version + " head", HttpRequest.newBuilder(URI.create(model))
                .method("HEAD", BodyPublishers.noBody()));
            var responses = new ArrayList<CompletableFuture<String>>();
            for (int i = 0; i < 20; i++) {
                responses.add(client.sendAsync(predict.copy().POST(BodyPublishers.ofByteArray(body)).build(),
                    BodyHandlers.ofString()).thenApply(response -> response.statusCode() + "\t" + response.body()));
            }
            for (var response : responses) {
                System.out.println(version + " concurrent\t" + response.join());
            }
        }
    }

    static BodyPublisher streamed(byte[] body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body));
    }

    static void send(HttpClient client, String name, HttpRequest.Builder request) throws Exception {
        var response = client.send(request.build(), BodyHandlers.ofString());
        System.out.println(name + "\t" + response.statusCode() + "\t" + response.body());
    }
}
