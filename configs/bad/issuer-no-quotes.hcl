server {
  trust_domain = example.org
  data_dir     = "${HOME}/lanyard"
}
