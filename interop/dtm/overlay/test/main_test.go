// Laid over test/main_test.go of DTM when its tests are built: no DTM is started, the server is a
// dtmd that is already there.
package test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/dtm-labs/dtm/client/dtmcli"
	"github.com/dtm-labs/dtm/client/dtmcli/dtmimp"
	"github.com/dtm-labs/dtm/client/workflow"
	"github.com/dtm-labs/dtm/dtmsvr/config"
	"github.com/dtm-labs/dtm/dtmutil"
	"github.com/dtm-labs/dtm/test/busi"
	"github.com/dtm-labs/dtmdriver"
	"github.com/dtm-labs/logger"
)

func TestMain(m *testing.M) {
	config.MustLoadConfig("")
	logger.InitLog(dtmimp.OrString(os.Getenv("SUITE_LOG"), "error"))
	useDatabase()
	dtmdriver.Middlewares.HTTP = append(dtmdriver.Middlewares.HTTP, busi.SetHTTPHeaderForHeadersYes)
	dtmdriver.Middlewares.Grpc = append(dtmdriver.Middlewares.Grpc, busi.SetGrpcHeaderForHeadersYes)
	populate()
	httpServer, grpcServer := busi.Startup()
	workflow.InitHTTP(dtmutil.DefaultHTTPServer, Busi+"/workflow/resume")
	workflow.InitGrpc(dtmutil.DefaultGrpcServer, busi.BusiGrpc, grpcServer)
	go busi.RunGrpc(grpcServer)
	go busi.RunHTTP(httpServer)

	control("reset", map[string]any{}, nil)
	control("config", map[string]any{"AlertWebHook": busi.Busi + "/AlertWebHook"}, nil)
	setClock(0, cronForward)
	subscribeTopic()
	subscribeGrpcTopic()
	code := m.Run()
	if gid := processed(0); gid != "" {
		fmt.Println("a pass that no test has waited for:", gid)
	}
	os.Exit(code)
}

// useDatabase says where the business has its tables, and where DTM's code for SQL, which the tests
// look with, finds the server's.
func useDatabase() {
	driver, port := os.Getenv("SUITE_DATABASE"), int64(dtmimp.MustAtoi(os.Getenv("SUITE_DATABASE_PORT")))
	user := map[string]string{"mysql": "root", "postgres": "postgres"}[driver]
	busi.BusiConf = dtmcli.DBConf{Driver: driver, Host: "127.0.0.1", Port: port, User: user}
	conf.Store.Driver = os.Getenv("SUITE_STORE")
	conf.Store.Host, conf.Store.Port, conf.Store.User, conf.Store.Db = "127.0.0.1", port, user, "dtm"
	if driver == "postgres" {
		dtmcli.SetCurrentDBType(driver)
		busi.BusiConf.Db, conf.Store.Db = "postgres", "postgres"
		// The driver takes the word after an empty value for the value, and the port is such a word.
		busi.BusiConf.Schema, conf.Store.Schema = "public", "public"
	}
}

// populate makes the tables of the business. DTM's function for it insists on a MongoDB.
func populate() {
	busi.ResetXaData()
	for _, tables := range []string{"busi", "dtmcli.barrier"} {
		script := fmt.Sprintf("%s/%s.%s.sql", dtmutil.GetSQLDir(), tables, busi.BusiConf.Driver)
		dtmutil.RunSQLScript(busi.BusiConf, script, false)
	}
	e2p(busi.RedisGet().FlushAll(context.Background()).Err())
	busi.SetRedisBothAccount(10000, 10000)
}
