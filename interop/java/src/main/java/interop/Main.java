package interop;

/**
 * Services and clients on DTM's published Java SDK, against a dtmd and a MariaDB given by address.
 *
 * <pre>
 * Main --db HOST:PORT --dtm HOST:PORT            plays every scenario
 * Main --db HOST:PORT --dtm HOST:PORT --serve    serves its bank until its input ends
 * </pre>
 */
public final class Main {
    public static void main(String[] args) throws Exception {
        String db = null;
        String dtm = null;
        boolean serve = false;
        for (int i = 0; i < args.length; i++) {
            switch (args[i]) {
                case "--db" -> db = args[++i];
                case "--dtm" -> dtm = args[++i];
                case "--serve" -> serve = true;
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        Bank bank = new Bank(db);
        int failed = 0;
        if (serve) {
            System.out.println("listening on " + bank.url());
            System.in.transferTo(java.io.OutputStream.nullOutputStream());
        } else {
            failed = new Scenarios(bank, dtm).play();
        }
        System.exit(failed == 0 ? 0 : 1);
    }
}
