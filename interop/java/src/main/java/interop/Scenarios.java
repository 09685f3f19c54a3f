package interop;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import pub.dtm.client.DtmClient;
import pub.dtm.client.exception.FailureException;
import pub.dtm.client.saga.Saga;

/** Every mode that DTM's Java SDK has, each with accounts and a gid of its own. */
final class Scenarios {
    private static final long START = 1000;
    private static final long SUM = 30;
    private static final long PATIENCE_NS = 30_000_000_000L;

    private interface Scenario {
        void play(Stage stage) throws Exception;
    }

    private final Map<String, Scenario> all = new LinkedHashMap<>();
    private final ObjectMapper json = new ObjectMapper();
    private final HttpClient http = HttpClient.newHttpClient();
    private final Bank bank;
    private final String server;
    private final DtmClient dtm;

    Scenarios(Bank bank, String server) {
        this.bank = bank;
        this.server = server;
        this.dtm = new DtmClient(server);
        all.put("saga", this::saga);
        all.put("saga rolled back", this::sagaRolledBack);
        all.put("concurrent saga with orders", this::concurrentSaga);
        all.put("concurrent saga rolled back", this::concurrentSagaRolledBack);
        all.put("tcc", this::tcc);
        all.put("tcc cancelled", this::tccCancelled);
        all.put("tcc with a gid of its own", this::tccWithGid);
        all.put("refused", this::refused);
    }

    /** Plays all; returns how many went wrong. */
    int play() throws Exception {
        int failed = 0;
        for (Map.Entry<String, Scenario> one : all.entrySet()) {
            try {
                one.getValue().play(new Stage(one.getKey().replace(' ', '-')));
                System.out.println("ok      " + one.getKey());
            } catch (Exception | AssertionError error) {
                failed++;
                System.out.println("FAILED  " + one.getKey() + " - " + error);
            }
        }
        System.out.printf("interop with dtmcli-java: %d of %d ok%n", all.size() - failed, all.size());
        return failed;
    }

    /** Two accounts, and what is asked about them. */
    private final class Stage {
        final String from;
        final String into;

        Stage(String name) throws Exception {
            from = "java-from-" + name;
            into = "java-into-" + name;
            for (String account : List.of(from, into)) {
                try (Connection connection = bank.connect();
                        PreparedStatement insert =
                                connection.prepareStatement("insert into account (name, balance) values (?, ?)")) {
                    insert.setString(1, account);
                    insert.setLong(2, START);
                    insert.executeUpdate();
                }
            }
        }

        String at(String operation) {
            return bank.url() + "/" + operation;
        }

        Map<String, Object> pay(String account) {
            return Map.of("account", account, "amount", SUM);
        }

        /** Waits for the transaction's end and looks at the accounts then. */
        void ends(String gid, String status, long moved) throws Exception {
            long deadline = System.nanoTime() + PATIENCE_NS;
            String seen = status(gid);
            while (!seen.equals(status)) {
                check(System.nanoTime() < deadline, gid + " is " + seen + ", not " + status);
                Thread.sleep(20);
                seen = status(gid);
            }
            holds(from, START - moved);
            holds(into, START + moved);
        }

        private void holds(String account, long balance) throws Exception {
            try (Connection connection = bank.connect();
                    PreparedStatement select =
                            connection.prepareStatement("select balance, held from account where name = ?")) {
                select.setString(1, account);
                ResultSet row = select.executeQuery();
                row.next();
                String got = row.getLong(1) + " and " + row.getLong(2) + " held";
                check(got.equals(balance + " and 0 held"), account + " has " + got + ", not " + balance);
            }
        }
    }

    private String status(String gid) throws Exception {
        URI query = URI.create("http://" + server + "/api/dtmsvr/query?gid=" + gid);
        HttpResponse<String> answer =
                http.send(HttpRequest.newBuilder(query).build(), HttpResponse.BodyHandlers.ofString());
        JsonNode status = json.readTree(answer.body()).path("transaction").path("status");
        return status.asText("");
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    private void saga(Stage s) throws Exception {
        String gid = dtm.newSaga()
                .add(s.at("out"), s.at("outUndo"), s.pay(s.from))
                .add(s.at("in"), s.at("inUndo"), s.pay(s.into))
                .enableWaitResult()
                .submit();
        check(status(gid).equals("succeed"), "the answer came before the end");
        s.ends(gid, "succeed", SUM);
    }

    private void sagaRolledBack(Stage s) throws Exception {
        Saga saga = dtm.newSaga()
                .add(s.at("out"), s.at("outUndo"), s.pay(s.from))
                .add(s.at("refuse"), s.at("nothing"), s.pay(s.into));
        s.ends(saga.submit(), "failed", 0);
    }

    private void concurrentSaga(Stage s) throws Exception {
        Saga saga = dtm.newSaga()
                .add(s.at("in"), s.at("inUndo"), s.pay(s.into))
                .add(s.at("out"), s.at("outUndo"), s.pay(s.from))
                .enableConcurrent()
                .addBranchOrder(0, List.of(1));
        s.ends(saga.submit(), "succeed", SUM);
    }

    private void concurrentSagaRolledBack(Stage s) throws Exception {
        Saga saga = dtm.newSaga()
                .add(s.at("out"), s.at("outUndo"), s.pay(s.from))
                .add(s.at("refuse"), s.at("nothing"), s.pay(s.into))
                .enableConcurrent()
                .addBranchOrder(1, List.of(0))
                .enableWaitResult();
        try {
            saga.submit();
        } catch (FailureException refused) {
            s.ends(saga.getGid(), "failed", 0);
            return;
        }
        throw new AssertionError("a saga that failed was answered as one that succeeded");
    }

    private void tcc(Stage s) throws Exception {
        String gid = dtm.tccGlobalTransaction(tcc -> {
            tcc.callBranch(s.pay(s.from), s.at("hold"), s.at("spend"), s.at("unhold"));
            tcc.callBranch(s.pay(s.into), s.at("nothing"), s.at("in"), s.at("nothing"));
        });
        s.ends(gid, "succeed", SUM);
    }

    private void tccCancelled(Stage s) throws Exception {
        String[] gid = new String[1];
        try {
            dtm.tccGlobalTransaction(tcc -> {
                gid[0] = tcc.getGid();
                tcc.callBranch(s.pay(s.from), s.at("hold"), s.at("spend"), s.at("unhold"));
                tcc.callBranch(s.pay(s.into), s.at("refuse"), s.at("in"), s.at("outUndo"));
            });
        } catch (FailureException refused) {
            s.ends(gid[0], "failed", 0);
            return;
        }
        throw new AssertionError("a try that was refused did not end the transaction");
    }

    private void tccWithGid(Stage s) throws Exception {
        String gid = "java-" + System.nanoTime();
        String same = dtm.tccGlobalTransaction(gid, tcc ->
                tcc.callBranch(s.pay(s.from), s.at("hold"), s.at("unhold"), s.at("unhold")));
        check(same.equals(gid), "another gid");
        s.ends(gid, "succeed", 0);
    }

    private void refused(Stage s) throws Exception {
        String gid = dtm.newSaga().add(s.at("nothing"), s.at("nothing"), s.pay(s.from)).submit();
        s.ends(gid, "succeed", 0);
        try {
            dtm.newSaga(gid).add(s.at("nothing"), s.at("nothing"), s.pay(s.from)).submit();
        } catch (FailureException ended) {
            return;
        }
        throw new AssertionError("what has ended was accepted again");
    }
}
