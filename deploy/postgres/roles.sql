-- Run once by the official PostgreSQL image, when docker-compose.yml's database is made. The passwords come from the
-- container's environment; one that is missing stops it. Below the line stands what `tally database prepare` prints.
\getenv tally_owner_password TALLY_OWNER_PASSWORD
\getenv tally_intake_password TALLY_INTAKE_PASSWORD
\getenv tally_app_password TALLY_APP_PASSWORD
-- ---------------------------------------------------------------------------------------------------------------------
-- The roles and the database of Tallygrid, for psql. Run it once, as a role that may make others (only a superuser or
-- a role with BYPASSRLS may give BYPASSRLS). Set the three passwords first; an unset one stops it as a syntax error:
--   psql -d postgres -v ON_ERROR_STOP=1
--   \set tally_owner_password '...'
--   \set tally_intake_password '...'
--   \set tally_app_password '...'
--   \i prepare.sql
SET password_encryption = 'scram-sha-256';

CREATE ROLE tally_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT NOBYPASSRLS PASSWORD :'tally_owner_password';

CREATE ROLE tally_intake LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT BYPASSRLS PASSWORD :'tally_intake_password';

CREATE ROLE tally_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT NOBYPASSRLS PASSWORD :'tally_app_password';

GRANT tally_owner TO CURRENT_USER;

CREATE DATABASE tallygrid OWNER tally_owner TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8';

REVOKE tally_owner FROM CURRENT_USER;

REVOKE ALL ON DATABASE tallygrid FROM PUBLIC;

GRANT CONNECT, TEMPORARY ON DATABASE tallygrid TO tally_intake;

GRANT CONNECT ON DATABASE tallygrid TO tally_app;
