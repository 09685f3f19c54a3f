// Command interop runs every mode of transaction against a dtmd, over gRPC, HTTP and JSON-RPC, with
// Go's own network libraries on the other side and a MariaDB that it starts for itself.
package main

import (
	"bufio"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

func main() {
	binary := flag.String("dtmd", "../../target/debug/dtmd", "the server's program")
	onlyServe := flag.Bool("serve", false, "serve the bank until the input ends, and do nothing else")
	database := flag.String("db", "", "with -serve: host:port of a MariaDB with a database dtm_barrier")
	_ = flag.String("dtm", "", "with -serve: not needed, accepted as the other languages' programs do")
	flag.Parse()
	var failed int
	var err error
	if *onlyServe {
		err = serveOnly(*database)
	} else {
		failed, err = run(*binary)
	}
	if err != nil {
		fmt.Println("interop:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

// serveOnly is a service beside those of other languages, on their barrier table.
func serveOnly(database string) error {
	db, err := sql.Open("mysql", "root@tcp("+database+")/dtm_barrier")
	if err != nil {
		return err
	}
	b := &bank{db: db, xaDB: db, resumes: map[string]func(string) error{}}
	if err := b.serve(); err != nil {
		return err
	}
	fmt.Println("listening on http://" + b.http)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func run(binary string) (failed int, err error) {
	folder, err := os.MkdirTemp("", "dtmd-interop-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	db, xaDB, stop, err := startMariaDB(folder)
	if err != nil {
		return 0, err
	}
	defer stop()
	httpAt, grpcAt, stopDtmd, err := startDtmd(binary, folder)
	if err != nil {
		return 0, err
	}
	defer stopDtmd()
	b := &bank{db: db, xaDB: xaDB, resumes: map[string]func(string) error{}}
	if err := b.serve(); err != nil {
		return 0, err
	}
	overGrpc, err := dialGrpc(grpcAt)
	if err != nil {
		return 0, err
	}
	servers := []dtm{overGrpc, &httpDtm{base: "http://" + httpAt}, &httpDtm{base: "http://" + httpAt, asRPC: true}}
	return playAll(servers, b)
}

// playAll runs all scenarios over all transports at once; returns how many went wrong.
func playAll(servers []dtm, b *bank) (failed int, err error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	begun := time.Now()
	count := 0
	for _, server := range servers {
		for nth, one := range scenarios {
			if one.name == workflowName && server.protocol() == "json-rpc" {
				continue
			}
			count++
			tag := fmt.Sprintf("%s-%02d", server.name(), nth+1)
			s := &stage{dtm: server, bank: b, gid: "interop-" + tag, from: "from-" + tag, into: "into-" + tag}
			_, err := b.db.Exec("insert into account (name, balance) values (?,?),(?,?)", s.from, start, s.into, start)
			if err != nil {
				return 0, err
			}
			wait.Go(func() {
				err := one.run(s)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed++
					fmt.Printf("FAILED  %-8s %s: %v\n", server.name(), one.name, err)
				} else {
					fmt.Printf("ok      %-8s %s\n", server.name(), one.name)
				}
			})
		}
	}
	wait.Wait()
	fmt.Printf("interop-go: %d of %d ok in %.1f s\n", count-failed, count, time.Since(begun).Seconds())
	return failed, nil
}

// startDtmd starts the server on free ports and reads from its output which ones.
func startDtmd(binary, folder string) (httpAt, grpcAt string, stop func(), err error) {
	command := exec.Command(binary, "serve", "--data", filepath.Join(folder, "store"),
		"--http-port", "0", "--grpc-port", "0")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(folder, "dtmd.log"))
	if err != nil {
		return "", "", nil, err
	}
	command.Stderr = log
	output, err := command.StdoutPipe()
	if err != nil {
		return "", "", nil, err
	}
	if err := command.Start(); err != nil {
		return "", "", nil, err
	}
	stop = func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	}
	lines := bufio.NewScanner(output)
	for (httpAt == "" || grpcAt == "") && lines.Scan() {
		if at, ok := strings.CutPrefix(lines.Text(), "listening on http://"); ok {
			httpAt = at
		}
		if at, ok := strings.CutPrefix(lines.Text(), "grpc on http://"); ok {
			grpcAt = at
		}
	}
	if grpcAt == "" {
		stop()
		text, _ := os.ReadFile(log.Name())
		return "", "", nil, fmt.Errorf("dtmd did not start:\n%s", text)
	}
	go func() { _, _ = io.Copy(io.Discard, output) }()
	return httpAt, grpcAt, stop, nil
}

// startMariaDB starts a database server of our own in the folder.
func startMariaDB(folder string) (db, xaDB *sql.DB, stop func(), err error) {
	data := filepath.Join(folder, "data")
	flags := []string{"--no-defaults", "--datadir=" + data}
	if os.Getuid() == 0 {
		// The server refuses to run as root unless it is told to.
		flags = append(flags, "--user=root")
	}
	install := exec.Command(find("mariadb-install-db"), append(flags,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")...)
	// A MariaDB that starts removes the temporary tables of all others that have them in the same place.
	install.Env = append(os.Environ(), "TMPDIR="+folder)
	if text, err := install.CombinedOutput(); err != nil {
		return nil, nil, nil, fmt.Errorf("mariadb-install-db: %w\n%s", err, text)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	server := exec.Command(find("mariadbd"), append(flags, "--bind-address=127.0.0.1", "--skip-name-resolve",
		fmt.Sprintf("--port=%d", port), "--socket="+filepath.Join(folder, "socket"),
		"--pid-file="+filepath.Join(folder, "pid"), "--innodb-buffer-pool-size=32M",
		"--innodb-flush-log-at-trx-commit=2", "--performance-schema=off")...)
	server.Env = install.Env
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		return nil, nil, nil, err
	}
	stop = func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	if db, xaDB, err = connect(port); err != nil {
		stop()
	}
	return db, xaDB, stop, err
}

func connect(port int) (db, xaDB *sql.DB, err error) {
	// What the driver says while the server comes up is of no interest.
	_ = mysql.SetLogger(&mysql.NopLogger{})
	source := fmt.Sprintf("root@tcp(127.0.0.1:%d)/", port)
	admin, err := sql.Open("mysql", source)
	if err != nil {
		return nil, nil, err
	}
	defer admin.Close()
	err = eventually(func() error {
		_, err := admin.Exec("create database if not exists bank")
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if db, err = sql.Open("mysql", source+"bank"); err != nil {
		return nil, nil, err
	}
	if xaDB, err = sql.Open("mysql", source+"bank"); err != nil {
		return nil, nil, err
	}
	xaDB.SetMaxIdleConns(-1)
	for _, statement := range strings.Split(schema, ";") {
		if _, err := db.Exec(statement); err != nil {
			return nil, nil, err
		}
	}
	return db, xaDB, nil
}

// find returns a program's path; servers often lie outside of PATH.
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}
