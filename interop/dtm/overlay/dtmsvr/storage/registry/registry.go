// Laid over dtmsvr/storage/registry/registry.go of DTM when its tests are built: they look at what
// the server has stored with DTM's own code for SQL, or ask the server if it keeps that elsewhere.
package registry

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/dtm-labs/dtm/client/dtmcli/dtmimp"
	"github.com/dtm-labs/dtm/dtmsvr/config"
	"github.com/dtm-labs/dtm/dtmsvr/storage"
	"github.com/dtm-labs/dtm/dtmsvr/storage/sql"
	"github.com/dtm-labs/dtm/dtmutil"
)

// StorageFactory is what DTM calls it.
type StorageFactory interface{ GetStorage() storage.Store }

// GetStore returns the server's tables, or the server.
func GetStore() storage.Store {
	if config.Config.Store.IsDB() {
		return &sql.Store{}
	}
	return server{}
}

// WaitStoreUp is for a DTM; there is none.
func WaitStoreUp() {}

// server is a store that can be read only. Whatever else is asked of it is a panic.
type server struct{ storage.Store }

type stored struct {
	Transaction *storage.TransGlobalStore  `json:"transaction"`
	Branches    []storage.TransBranchStore `json:"branches"`
}

func query(gid string) (found stored) {
	answer, err := http.Get(dtmutil.DefaultHTTPServer + "/query?gid=" + url.QueryEscape(gid))
	dtmimp.E2P(err)
	defer answer.Body.Close()
	dtmimp.E2P(json.NewDecoder(answer.Body).Decode(&found))
	return found
}

func (server) FindTransGlobalStore(gid string) *storage.TransGlobalStore {
	return query(gid).Transaction
}
func (server) FindBranches(gid string) []storage.TransBranchStore { return query(gid).Branches }
