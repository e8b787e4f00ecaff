package serverapi

import (
	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/changesv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/debugv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/entryv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/loggerv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/trustdomainv1"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// callers is a set of kinds of caller.
type callers uint8

const (
	// callerAny is everyone, with or without a certificate.
	callerAny callers = 1 << iota
	// callerLocal comes over the admin socket.
	callerLocal
	// callerAdmin is in admin_ids, or has an entry with admin = true.
	callerAdmin
	// callerDownstream has an entry with downstream = true.
	callerDownstream
	// callerAgent is an attested agent with the serial in use.
	callerAgent

	operators = callerLocal | callerAdmin
)

// effect says which calls are logged though they succeed.
type effect uint8

const (
	reads effect = iota
	writes
	signs
)

// rule is who may call a method and what it does.
type rule struct {
	allow  callers
	effect effect
}

// rules has a row for every method that is served; any other is denied to
// everyone. The rights are SPIRE's. Read only.
var rules = map[string]rule{
	agentv1.Agent_CountAgents_FullMethodName:     {operators, reads},
	agentv1.Agent_ListAgents_FullMethodName:      {operators, reads},
	agentv1.Agent_GetAgent_FullMethodName:        {operators, reads},
	agentv1.Agent_DeleteAgent_FullMethodName:     {operators, writes},
	agentv1.Agent_BanAgent_FullMethodName:        {operators, writes},
	agentv1.Agent_AttestAgent_FullMethodName:     {callerAny, signs},
	agentv1.Agent_RenewAgent_FullMethodName:      {callerAgent, signs},
	agentv1.Agent_CreateJoinToken_FullMethodName: {operators, writes},
	agentv1.Agent_PostStatus_FullMethodName:      {callerAgent, writes},

	bundlev1.Bundle_CountBundles_FullMethodName:               {operators, reads},
	bundlev1.Bundle_GetBundle_FullMethodName:                  {callerAny, reads},
	bundlev1.Bundle_AppendBundle_FullMethodName:               {operators, writes},
	bundlev1.Bundle_PublishJWTAuthority_FullMethodName:        {callerDownstream, writes},
	bundlev1.Bundle_PublishWITAuthority_FullMethodName:        {callerDownstream, writes},
	bundlev1.Bundle_ListFederatedBundles_FullMethodName:       {operators, reads},
	bundlev1.Bundle_GetFederatedBundle_FullMethodName:         {operators | callerAgent, reads},
	bundlev1.Bundle_BatchCreateFederatedBundle_FullMethodName: {operators, writes},
	bundlev1.Bundle_BatchUpdateFederatedBundle_FullMethodName: {operators, writes},
	bundlev1.Bundle_BatchSetFederatedBundle_FullMethodName:    {operators, writes},
	bundlev1.Bundle_BatchDeleteFederatedBundle_FullMethodName: {operators, writes},

	entryv1.Entry_CountEntries_FullMethodName:          {operators, reads},
	entryv1.Entry_ListEntries_FullMethodName:           {operators, reads},
	entryv1.Entry_GetEntry_FullMethodName:              {operators, reads},
	entryv1.Entry_BatchCreateEntry_FullMethodName:      {operators, writes},
	entryv1.Entry_BatchUpdateEntry_FullMethodName:      {operators, writes},
	entryv1.Entry_BatchDeleteEntry_FullMethodName:      {operators, writes},
	entryv1.Entry_GetAuthorizedEntries_FullMethodName:  {callerAgent, reads},
	entryv1.Entry_SyncAuthorizedEntries_FullMethodName: {callerAgent, reads},

	svidv1.SVID_MintX509SVID_FullMethodName:        {operators, signs},
	svidv1.SVID_MintJWTSVID_FullMethodName:         {operators, signs},
	svidv1.SVID_MintWITSVID_FullMethodName:         {operators, signs},
	svidv1.SVID_BatchNewX509SVID_FullMethodName:    {callerAgent, signs},
	svidv1.SVID_NewJWTSVID_FullMethodName:          {callerAgent, signs},
	svidv1.SVID_BatchNewWITSVID_FullMethodName:     {callerAgent, signs},
	svidv1.SVID_NewDownstreamX509CA_FullMethodName: {callerDownstream, signs},

	trustdomainv1.TrustDomain_ListFederationRelationships_FullMethodName:       {operators, reads},
	trustdomainv1.TrustDomain_GetFederationRelationship_FullMethodName:         {operators, reads},
	trustdomainv1.TrustDomain_BatchCreateFederationRelationship_FullMethodName: {operators, writes},
	trustdomainv1.TrustDomain_BatchUpdateFederationRelationship_FullMethodName: {operators, writes},
	trustdomainv1.TrustDomain_BatchDeleteFederationRelationship_FullMethodName: {operators, writes},
	trustdomainv1.TrustDomain_RefreshBundle_FullMethodName:                     {operators, writes},

	localauthorityv1.LocalAuthority_GetJWTAuthorityState_FullMethodName:        {operators, reads},
	localauthorityv1.LocalAuthority_PrepareJWTAuthority_FullMethodName:         {operators, writes},
	localauthorityv1.LocalAuthority_ActivateJWTAuthority_FullMethodName:        {operators, writes},
	localauthorityv1.LocalAuthority_TaintJWTAuthority_FullMethodName:           {operators, writes},
	localauthorityv1.LocalAuthority_RevokeJWTAuthority_FullMethodName:          {operators, writes},
	localauthorityv1.LocalAuthority_GetX509AuthorityState_FullMethodName:       {operators, reads},
	localauthorityv1.LocalAuthority_PrepareX509Authority_FullMethodName:        {operators, writes},
	localauthorityv1.LocalAuthority_ActivateX509Authority_FullMethodName:       {operators, writes},
	localauthorityv1.LocalAuthority_TaintX509Authority_FullMethodName:          {operators, writes},
	localauthorityv1.LocalAuthority_TaintX509UpstreamAuthority_FullMethodName:  {operators, writes},
	localauthorityv1.LocalAuthority_RevokeX509Authority_FullMethodName:         {operators, writes},
	localauthorityv1.LocalAuthority_RevokeX509UpstreamAuthority_FullMethodName: {operators, writes},
	localauthorityv1.LocalAuthority_GetWITAuthorityState_FullMethodName:        {operators, reads},
	localauthorityv1.LocalAuthority_PrepareWITAuthority_FullMethodName:         {operators, writes},
	localauthorityv1.LocalAuthority_ActivateWITAuthority_FullMethodName:        {operators, writes},
	localauthorityv1.LocalAuthority_TaintWITAuthority_FullMethodName:           {operators, writes},
	localauthorityv1.LocalAuthority_RevokeWITAuthority_FullMethodName:          {operators, writes},

	changesv1.Changes_Watch_FullMethodName: {callerAgent, reads},

	loggerv1.Logger_GetLogger_FullMethodName:     {callerLocal, reads},
	loggerv1.Logger_SetLogLevel_FullMethodName:   {callerLocal, writes},
	loggerv1.Logger_ResetLogLevel_FullMethodName: {callerLocal, writes},

	debugv1.Debug_GetInfo_FullMethodName: {callerLocal, reads},

	operationsv1.Operations_GetCAPlan_FullMethodName:    {callerLocal, reads},
	operationsv1.Operations_CreateToken_FullMethodName:  {callerLocal, writes},
	operationsv1.Operations_ListTokens_FullMethodName:   {callerLocal, reads},
	operationsv1.Operations_RevokeToken_FullMethodName:  {callerLocal, writes},
	operationsv1.Operations_ImportAgents_FullMethodName: {callerLocal, writes},
	// A backup holds the private keys: who takes one is worth a line.
	operationsv1.Operations_Backup_FullMethodName: {callerLocal, signs},

	grpc_health_v1.Health_Check_FullMethodName: {callerLocal, reads},
	grpc_health_v1.Health_List_FullMethodName:  {callerLocal, reads},
	grpc_health_v1.Health_Watch_FullMethodName: {callerLocal, reads},
}
