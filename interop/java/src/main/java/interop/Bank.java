package interop;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executors;
import pub.dtm.client.barrier.BranchBarrier;
import pub.dtm.client.exception.FailureException;

/** A service with a database whose every operation runs behind the barrier of DTM's Java SDK. */
final class Bank {
    /** What each operation does to an account; the parameters are amounts, then the name. */
    private static final Map<String, String> CHANGES = Map.of(
            "out", "balance = balance - ?",
            "outUndo", "balance = balance + ?",
            "in", "balance = balance + ?",
            "inUndo", "balance = balance - ?",
            "hold", "held = held + ?",
            "unhold", "held = held - ?",
            "spend", "balance = balance - ?, held = held - ?");

    private final ObjectMapper json = new ObjectMapper();
    private final String db;
    private final HttpServer server;

    Bank(String db) throws IOException {
        this.db = "jdbc:mariadb://" + db + "/dtm_barrier?user=root";
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", this::serve);
        server.setExecutor(Executors.newCachedThreadPool(work -> {
            Thread thread = new Thread(work);
            thread.setDaemon(true);
            return thread;
        }));
        server.start();
    }

    String url() {
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    Connection connect() throws SQLException {
        return DriverManager.getConnection(db);
    }

    private void serve(HttpExchange exchange) throws IOException {
        int status = 200;
        String result = "SUCCESS";
        try {
            byte[] body = exchange.getRequestBody().readAllBytes();
            run(exchange.getRequestURI().getPath().substring(1), query(exchange), json.readTree(body));
        } catch (FailureException refused) {
            status = 409;
            result = "FAILURE";
        } catch (Exception error) {
            status = 500;
            result = error.toString();
        }
        byte[] answer = json.writeValueAsBytes(Map.of("dtm_result", result));
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, answer.length);
        exchange.getResponseBody().write(answer);
        exchange.close();
    }

    /** The query's parameters as a servlet gives them, which is what the SDK takes. */
    private static Map<String, String[]> query(HttpExchange exchange) {
        Map<String, String[]> parameters = new HashMap<>();
        String query = exchange.getRequestURI().getRawQuery();
        for (String pair : (query == null ? "" : query).split("&")) {
            int equals = pair.indexOf('=');
            String name = equals < 0 ? pair : pair.substring(0, equals);
            // Its class for the parameters refuses what it does not know.
            if (name.equals("gid") || name.equals("trans_type") || name.equals("branch_id") || name.equals("op")) {
                String value = URLDecoder.decode(pair.substring(equals + 1), StandardCharsets.UTF_8);
                parameters.put(name, new String[] {value});
            }
        }
        return parameters;
    }

    private void run(String operation, Map<String, String[]> call, JsonNode order) throws Exception {
        try (Connection connection = connect()) {
            new BranchBarrier(call).call(connection, branch -> change(connection, operation, order));
        }
    }

    private static void change(Connection connection, String operation, JsonNode order) throws Exception {
        if (operation.equals("refuse")) {
            throw new FailureException("the account is closed");
        }
        if (operation.equals("nothing")) {
            return;
        }
        String how = CHANGES.get(operation);
        if (how == null) {
            throw new IllegalArgumentException("no operation " + operation);
        }
        String sql = "update account set " + how + " where name = ?";
        try (PreparedStatement update = connection.prepareStatement(sql)) {
            int amounts = how.length() - how.replace("?", "").length();
            for (int i = 1; i <= amounts; i++) {
                update.setLong(i, order.get("amount").asLong());
            }
            update.setString(amounts + 1, order.get("account").asText());
            update.executeUpdate();
        }
    }
}
